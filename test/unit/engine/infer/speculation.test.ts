import { expect, test } from 'vitest'
import { lookUp, newGuessing, Speculation } from '../../../../src/engine/infer/speculation.ts'

test('what followed the longest end before is looked up, the latest place first', () => {
  expect(lookUp([1, 2, 3, 4, 5], 4)).toEqual([])
  expect(lookUp([1, 2, 9, 8, 1, 2], 4)).toEqual([9, 8, 1, 2])
  expect(lookUp([1, 2, 9, 1, 2, 7, 1, 2], 1)).toEqual([7])
  // Three tokens say more than two.
  expect(lookUp([5, 1, 2, 9, 9, 1, 2, 7, 5, 1, 2], 1)).toEqual([9])
  expect(lookUp([1], 4)).toEqual([])
})

test('a guess is made where it has gained time, and tried again now and then where it has not', () => {
  const decoder = {}
  const tokens = [1, 2, 3, 4, 5, 6, 7, 1, 2]
  const speculation = new Speculation()
  const good = newGuessing()
  expect(speculation.draft(decoder, good, tokens, 9)).toHaveLength(6)
  expect(speculation.draft(decoder, good, tokens, 0)).toEqual([])
  speculation.ran(decoder, 1, 10)
  for (let n = 2; n <= 7; n++) speculation.ran(decoder, n, 10 + n)
  for (let i = 0; i < 9; i++) speculation.judged(good, 6, 6)
  expect(speculation.draft(decoder, good, tokens, 9)).toEqual([3, 4, 5, 6, 7, 1])
  expect(speculation.draft(decoder, good, tokens, 2)).toEqual([3, 4])

  const bad = newGuessing()
  for (let i = 0; i < 9; i++) speculation.judged(bad, 6, 0)
  const made = Array.from({ length: 48 }, () => speculation.draft(decoder, bad, tokens, 9).length)
  expect(made.filter((count) => count > 0)).toEqual([2, 2])
  expect(speculation.usage).toEqual({ drafted: 108, accepted: 54 })

  // Where a run of two takes as long as two runs, even what is always right gains nothing.
  const slow = {}
  for (let n = 1; n <= 7; n++) speculation.ran(slow, n, 10 * n)
  expect(speculation.draft(slow, good, tokens, 9)).toEqual([])
})
