import { expect, test } from 'vitest'
import { tokensOf } from '../../../../src/engine/datasets/text-batches.ts'
import { chooseTextShape } from '../../../../src/engine/train/text-shape.ts'
import type { ModelConfig } from '../../../../src/engine/weights/model-config.ts'

const minilm = {
  hidden_size: 384,
  intermediate_size: 1536,
  num_hidden_layers: 6,
  num_attention_heads: 12,
} as ModelConfig
const short = Array.from({ length: 320 }, (_, i) => 8 + (i % 20))

test('a whole batch of short texts is one run, with little padding', () => {
  const shape = chooseTextShape(minilm, short, 32)
  const batch = short.slice(0, 32).reduce((a, b) => a + b)
  expect(tokensOf(shape)).toBeGreaterThanOrEqual(batch)
  expect(tokensOf(shape)).toBeLessThanOrEqual(1.3 * batch)
  expect(shape.length).toBeLessThanOrEqual(64)
  expect(shape.long).toBeUndefined()
})

test('one long text among many gets a row of its own, and the others stay short', () => {
  const shape = chooseTextShape(minilm, [...short, 300], 32)
  expect(shape.length).toBeLessThanOrEqual(64)
  expect(shape.long).toEqual({ rows: 1, length: 320 })
  expect(chooseTextShape(minilm, short, 32, { longest: 500 }).long).toEqual({
    rows: 1,
    length: 512,
  })
})

test('texts that are all long have rows for them', () => {
  const shape = chooseTextShape(minilm, new Array<number>(64).fill(250), 8)
  expect(shape).toMatchObject({ length: 256 })
  expect(chooseTextShape(minilm, [2000], 8)).toEqual({ rows: 1, length: 2016 })
})
