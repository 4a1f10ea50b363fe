import { expect, test } from 'vitest'
import { logprobsOf } from '../../../../src/engine/infer/logprobs.ts'

test('log-softmax of the row, and the most probable ones in order', () => {
  const p = [0.1, 0.4, 0.2, 0.2, 0.1]
  const x = Float32Array.from(p, (value) => Math.log(value) + 7)
  const { logprob, top } = logprobsOf(x, 4, 4)
  expect(logprob).toBeCloseTo(Math.log(0.1), 5)
  expect(top.map(({ id }) => id)).toEqual([1, 2, 3, 0])
  for (const { id, logprob } of top) expect(logprob).toBeCloseTo(Math.log(p[id]!), 5)
  expect(logprobsOf(x, 4, 0).top).toEqual([])
  expect(logprobsOf(x, 4, 20).top).toHaveLength(5)
})

test('impossible tokens have what JSON can say, and take nothing from the others', () => {
  const x = Float32Array.of(0, Number.NEGATIVE_INFINITY, 0, Number.NaN)
  expect(logprobsOf(x, 1, 3).logprob).toBe(-9999)
  expect(logprobsOf(x, 3, 0).logprob).toBe(-9999)
  expect(logprobsOf(x, 0, 0).logprob).toBeCloseTo(Math.log(0.5), 6)
})

test('large logits do not overflow, and a sure token has 0, never more', () => {
  expect(logprobsOf(Float32Array.of(1e4, 0), 0, 0).logprob).toBe(0)
  expect(logprobsOf(Float32Array.of(1e4, 0), 1, 0).logprob).toBe(-9999)
  expect(logprobsOf(Float32Array.of(1e3, 0), 1, 0).logprob).toBe(-1000)
})

test('probabilities of a whole vocabulary sum to one', () => {
  const x = Float32Array.from({ length: 49_152 }, (_, i) => 9 * Math.sin(i * 12.9898))
  let sum = 0
  for (let i = 0; i < x.length; i += 64) sum += Math.exp(logprobsOf(x, i, 0).logprob)
  const { top } = logprobsOf(x, 0, 20)
  const sorted = Array.from(x).sort((a, b) => b - a)
  expect(top.map(({ id }) => x[id])).toEqual(sorted.slice(0, 20))
  // Every 64th is about a 64th of the mass.
  expect(sum * 64).toBeGreaterThan(0.9)
  expect(sum * 64).toBeLessThan(1.1)
})
