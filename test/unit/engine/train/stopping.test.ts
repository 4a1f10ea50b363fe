import { expect, test } from 'vitest'
import { bestEpoch, isExhausted } from '../../../../src/engine/train/stopping.ts'

test('the best epoch is the first of lowest loss, and what is no number is none', () => {
  expect(bestEpoch([3, 1, 2, 1])).toBe(1)
  expect(bestEpoch([Number.NaN, 2])).toBe(1)
  expect(bestEpoch([])).toBeUndefined()
  expect(bestEpoch([Number.NaN])).toBeUndefined()
})

test.each([
  ['it falls', [3, 2, 1], 1, 0, false],
  ['it rises once, and one is waited for', [1, 2], 1, 0, true],
  ['it rises once, and two are waited for', [1, 2], 2, 0, false],
  ['it rises twice', [1, 2, 3], 2, 0, true],
  ['a gain between starts the count anew', [3, 4, 2, 4], 2, 0, false],
  ['the same again is no gain', [1, 1], 1, 0, true],
  ['a gain below min_delta is none', [1, 0.95], 1, 0.1, true],
  ['small gains add up', [1, 0.95, 0.85], 2, 0.1, false],
  ['what is no number is no gain', [1, Number.NaN], 1, 0, true],
  ['nothing was measured', [], 1, 0, false],
])('exhausted or not: %s', (_, losses, patience, min_delta, is) => {
  expect(isExhausted(losses, { patience, min_delta })).toBe(is)
})
