import { expect, test } from 'vitest'
import { ApiError } from '../../../../src/errors.ts'
import { goDuration, RateLimits } from '../../../../src/service/http/rate-limits.ts'

test.each([
  [0, '0s'],
  [0.2, '1ms'],
  [12, '12ms'],
  [1000, '1s'],
  [1250, '1.25s'],
  [360_000, '6m0s'],
  [3_602_500, '1h0m2.5s'],
])('%f ms is %s', (ms, text) => expect(goDuration(ms)).toBe(text))

const refusal = (take: () => unknown): ApiError => {
  try {
    take()
  } catch (error) {
    if (error instanceof ApiError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

test('requests run out, say when to come again, and come back evenly', () => {
  const limits = new RateLimits({ requests_per_minute: 3, tokens_per_minute: 1000 })
  expect(limits.take('a', 10, 0).headers).toEqual({
    'x-ratelimit-limit-requests': '3',
    'x-ratelimit-limit-tokens': '1000',
    'x-ratelimit-remaining-requests': '2',
    'x-ratelimit-remaining-tokens': '990',
    'x-ratelimit-reset-requests': '20s',
    'x-ratelimit-reset-tokens': '600ms',
  })
  limits.take('a', 10, 0)
  limits.take('a', 10, 0)
  const error = refusal(() => limits.take('a', 10, 5000))
  expect(error).toMatchObject({ status: 429, type: 'requests', code: 'rate_limit_exceeded' })
  expect(error.headers).toMatchObject({ 'retry-after': '15', 'retry-after-ms': '15000' })
  expect(error.message).toContain('Limit 3, Used 3, Requested 1. Please try again in 15s.')
  limits.take('a', 10, 20_000)
  // Another key has an allowance of its own.
  limits.take('b', 10, 5000)
})

test('tokens that were not used are given back, and those beyond are owed', () => {
  const limits = new RateLimits({ requests_per_minute: 1000, tokens_per_minute: 600 })
  const { took } = limits.take('a', 500, 0)
  expect(refusal(() => limits.take('a', 500, 0)).type).toBe('tokens')
  limits.settle('a', { took, used: 50 }, 0)
  expect(limits.take('a', 500, 0).headers['x-ratelimit-remaining-tokens']).toBe('50')
  limits.settle('a', { took: 500, used: 1100 }, 0)
  // 550 below zero: 10 tokens a second.
  expect(refusal(() => limits.take('a', 1, 0)).headers['retry-after']).toBe('56')
  expect(refusal(() => limits.take('a', 1, 0)).headers['x-ratelimit-remaining-tokens']).toBe('0')
})

test('a request larger than the whole allowance goes when it is full', () => {
  const limits = new RateLimits({ requests_per_minute: 1000, tokens_per_minute: 100 })
  expect(limits.take('a', 5000, 0).took).toBe(100)
  expect(refusal(() => limits.take('a', 5000, 30_000)).headers['retry-after']).toBe('30')
  expect(limits.take('a', 5000, 60_000).took).toBe(100)
})
