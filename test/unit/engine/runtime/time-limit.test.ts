import { expect, test } from 'vitest'
import { TimeLimit, withTimeLimit } from '../../../../src/engine/runtime/time-limit.ts'

test('what ends in time returns, or throws its own error', () => {
  expect(withTimeLimit(100, () => 7)).toBe(7)
  class Own extends Error {}
  const own = () => {
    throw new Own('mine')
  }
  expect(() => withTimeLimit(100, own)).toThrow(Own)
})

test('what does not end is stopped', () => {
  const endless = () => {
    for (let i = 0; ; i++) if (i < 0) return i
  }
  expect(() => withTimeLimit(50, endless)).toThrow(TimeLimit)
})
