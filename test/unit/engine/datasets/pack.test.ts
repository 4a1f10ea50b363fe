import fc from 'fast-check'
import { expect, test } from 'vitest'
import { packExamples } from '../../../../src/engine/datasets/pack.ts'

test('the longest go first, and the short ones fill what is left', () => {
  expect(packExamples([3, 9, 1, 7], 10)).toEqual([
    [1, 2],
    [3, 0],
  ])
})

test('every example lies in one row, and no row overflows', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 64 }), { maxLength: 60 }), (lengths) => {
      const rows = packExamples(lengths, 64)
      expect(rows.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i))
      for (const row of rows)
        expect(row.reduce((n, i) => n + lengths[i]!, 0)).toBeLessThanOrEqual(64)
    }),
  )
})

test('an example longer than a row is refused', () => {
  expect(() => packExamples([5, 11], 10)).toThrow('example 1 has 11 tokens, a row has 10')
})
