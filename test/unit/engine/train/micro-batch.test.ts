import { expect, test } from 'vitest'
import type { Example } from '../../../../src/engine/datasets/example.ts'
import { microBatches, totalWeight } from '../../../../src/engine/train/micro-batch.ts'

const example = (tokens: number[], weights: number[]): Example => ({
  line: 1,
  tokens: Int32Array.from(tokens),
  weights: Float32Array.from(weights),
})

test('examples lie end to end, each with positions and a segment of its own', () => {
  const a = example([11, 12, 13], [0, 0, 1])
  const b = example([21, 22], [0, 0.5])
  const [batch, ...rest] = [...microBatches([a, b], { rows: 1, length: 6 }, totalWeight([a, b]))]
  expect(rest).toEqual([])
  const numbers = (name: string) => Array.from(batch!.feeds[name]!.data, Number)
  expect(numbers('tokens')).toEqual([11, 12, 13, 21, 22, 0])
  expect(numbers('positions')).toEqual([0, 1, 2, 0, 1, 0])
  expect(numbers('segments')).toEqual([1, 1, 1, 2, 2, 0])
  // The token before a supervised one predicts it.
  expect(numbers('index')).toEqual([1, 3])
  expect(numbers('targets')).toEqual([13, 22])
  expect(numbers('weights')).toEqual([expect.closeTo(1 / 1.5, 6), expect.closeTo(0.5 / 1.5, 6)])
})

test('what does not fit into one micro-batch goes into the next', () => {
  const rows = Array.from({ length: 5 }, () => example([1, 2, 3, 4], [0, 1, 1, 1]))
  const batches = [...microBatches(rows, { rows: 2, length: 4 }, 15)]
  expect(batches.map((b) => b.feeds.index!.dims[0])).toEqual([6, 6, 3])
})
