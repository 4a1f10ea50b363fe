import { expect, test } from 'vitest'
import { packTexts, textBatches } from '../../../../src/engine/datasets/text-batches.ts'

const shape = { rows: 2, length: 4, long: { rows: 1, length: 8 } }

test('texts go longest first into short rows and long ones, and then into a further micro-batch', () => {
  const texts = packTexts([3, 7, 4, 1, 2], shape).map((rows) => rows.map((row) => row.texts))
  expect(texts).toEqual([
    [[2], [0, 3], [1]],
    [[4], [], []],
  ])
})

test('a text longer than every row is an error', () => {
  expect(() => packTexts([9], shape)).toThrow('text 0 has 9 tokens, a row has 8')
})

test('each text has its place, its own positions and a segment of its row', () => {
  const text = (...tokens: number[]) => ({
    tokens: Int32Array.from(tokens),
    types: Int32Array.from(tokens, () => 1),
  })
  const [batch, ...rest] = [...textBatches([text(5, 6), text(7), text(1, 2, 3, 4, 5)], shape)]
  expect(rest).toEqual([])
  const feed = (name: string) => Array.from(batch!.feeds[name]!.data, Number)
  expect(batch!.texts).toEqual([
    { index: 0, at: 0 },
    { index: 1, at: 2 },
    { index: 2, at: 8 },
  ])
  expect(feed('tokens')).toEqual([5, 6, 7, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0])
  expect(feed('positions')).toEqual([0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0])
  expect(feed('segments')).toEqual([1, 1, 2, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0])
  expect(feed('types')).toEqual([1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0])
})
