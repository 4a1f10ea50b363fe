import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Example } from '../../../../src/engine/datasets/example.ts'
import { initialAdapter, loraLayout } from '../../../../src/engine/models/adapters.ts'
import { withInt8 } from '../../../../src/engine/models/int8.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../../../src/engine/train/optimizer.ts'
import { createTrainer } from '../../../../src/engine/train/trainer.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { temporaryFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const cosine = (a: Float32Array, b: Float32Array) => {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, v, i) => sum + v * y[i]!, 0)
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
}

test('a model with an int8 copy has nearly the gradient it has without, and keeps its first block', async () => {
  const cache = temporaryFolder()
  const checkpoint = await openCheckpoint(await writeTinyModel(join(temporaryFolder(), 'tiny')))
  const tokenizer = await openTokenizer(checkpoint)
  const weights = await mapWeights(checkpoint, cache)
  const quantised = await withInt8(weights, cache, tokenizer)
  const blocks = [...quantised.int8!.keys()]
  expect(blocks).toContain(
    'model.layers.1.self_attn.q_proj|model.layers.1.self_attn.k_proj|model.layers.1.self_attn.v_proj',
  )
  expect(blocks).toContain('model.layers.0.self_attn.o_proj')
  expect(blocks.filter((key) => key.startsWith('model.layers.0.self_attn.q_proj'))).toEqual([])

  const layout = loraLayout(weights, {
    rank: 2,
    alpha: 4,
    target_modules: ['q_proj', 'v_proj', 'up_proj', 'down_proj'],
  })
  const tokens = Int32Array.from({ length: 24 }, (_, i) => (i * 37) % 256)
  const examples: Example[] = [{ line: 1, tokens, weights: new Float32Array(24).fill(1, 1) }]
  const adapter = initialAdapter(layout, 1).map((v, i) => v || Math.sin(i) / 20)
  const gradient = async (w: typeof weights) => {
    await using trainer = await createTrainer(
      { step: 0, adapter: adapter.slice(), moments: createMoments(layout.parameters) },
      {
        objective: supervised.objective({ weights: w, layout, shape: { rows: 1, length: 32 } }),
        threads: 1,
        weightDecay: 0,
        maxGradNorm: 1,
        turn: async () => ({ [Symbol.dispose]() {} }),
      },
    )
    return await trainer.gradient(examples)
  }
  const exact = await gradient(weights)
  const near = await gradient(quantised)
  expect(near.loss).not.toBe(exact.loss)
  expect(near.loss).toBeCloseTo(exact.loss, 1)
  expect(cosine(near.gradient, exact.gradient)).toBeGreaterThan(0.99)

  // Made once: a second opening reads the same file.
  const files = readdirSync(cache)
  expect(files.filter((name) => name.includes('int8'))).toHaveLength(1)
  expect((await withInt8(weights, cache, tokenizer)).int8!.size).toBe(blocks.length)
  expect(readdirSync(cache)).toEqual(files)
})
