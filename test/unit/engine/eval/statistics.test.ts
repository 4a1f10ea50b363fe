// Against scipy 1.17.1: binomtest(k, n).proportion_ci(method='wilson'), binomtest(k, n).pvalue,
// permutation_test((d,), np.mean, permutation_type='samples'), bootstrap((d,), np.mean, method='percentile').

import { expect, test } from 'vitest'
import {
  bootstrapMean,
  mcnemar,
  passRate,
  permutationTest,
} from '../../../../src/engine/eval/statistics.ts'

test.each([
  [8, 10, 0.4901624715366418, 0.9433178485456248],
  [0, 20, 0, 0.16112515805281935],
  [20, 20, 0.8388748419471808, 1],
  [287, 1074, 0.2416242379582155, 0.29448564544980604],
])("%d of %d: Wilson's interval", (passed, rows, low, high) => {
  const found = passRate(passed, rows)
  expect(found.value).toBe(passed / rows)
  expect(found.low).toBeCloseTo(low, 12)
  expect(found.high).toBeCloseTo(high, 12)
})

test.each([
  [1, 9, 0.021484375],
  [14, 3, 0.012725830078125],
  [960, 1040, 0.07728689056266859],
  [5, 5, 1],
  [0, 0, 1],
])('%d against %d: the exact test of McNemar', (first, second, p) => {
  expect(mcnemar(first, second)).toBeCloseTo(p, 10)
})

const forty = Float64Array.from({ length: 40 }, (_, i) => ((i * 7) % 11) / 10 - 0.35)

test('few differences are tested by all their signs', () => {
  const few = Float64Array.of(0.1, 0.4, -0.2, 0.3, 0.25, 0.5, -0.1, 0.2)
  expect(permutationTest(few)).toBe(0.09375)
  expect(permutationTest(Float64Array.of(0, 0, 0))).toBe(1)
})

test('many differences are tested by drawn signs, the same at every call', () => {
  const p = permutationTest(forty)
  // 0.00519 of 500,000 draws; of 10,000 the standard error is 0.0007.
  expect(p).toBeGreaterThan(0.003)
  expect(p).toBeLessThan(0.0075)
  expect(permutationTest(forty)).toBe(p)
  // Another order is the same differences, and only other draws.
  expect(Math.abs(permutationTest(forty.toReversed()) - p)).toBeLessThan(0.003)
})

test("a mean's interval is that of its resamples, the same at every call", () => {
  const found = bootstrapMean(forty)
  expect(found.value).toBeCloseTo(0.155, 12)
  expect(Math.abs(found.low - 0.055)).toBeLessThan(0.006)
  expect(Math.abs(found.high - 0.255)).toBeLessThan(0.006)
  expect(bootstrapMean(forty)).toEqual(found)
  expect(bootstrapMean(Float64Array.of(0.5, 0.5))).toEqual({ value: 0.5, low: 0.5, high: 0.5 })
})

test('a mean of fair draws is inside its interval as often as 95 % promises', () => {
  let inside = 0
  let word = 1
  const draw = () => {
    word = (word * 48271) % 2147483647
    return word / 2147483647
  }
  for (let trial = 0; trial < 100; trial++) {
    const { low, high } = bootstrapMean(Float64Array.from({ length: 60 }, draw))
    if (low <= 0.5 && 0.5 <= high) inside++
  }
  // Binomial(100, 0.95): 95 ± 2.2; percentile intervals of 60 rows are a little narrow.
  expect(inside).toBeGreaterThan(88)
})

test('of very many values the normal distribution says what draws would say', () => {
  const many = (length: number) =>
    Float64Array.from({ length }, (_, i) => (((i * 7919) % 1000) - 485) / 1000)
  const [drawn, reckoned] = [bootstrapMean(many(5000)), bootstrapMean(many(5001))]
  expect(Math.abs(drawn.low - reckoned.low)).toBeLessThan(0.001)
  expect(Math.abs(drawn.high - reckoned.high)).toBeLessThan(0.001)
  const some = (length: number) => Float64Array.from({ length }, (_, i) => (i % 100 < 52 ? 1 : -1))
  // binomtest(2600, 5000).pvalue is 0.0049.
  expect(Math.abs(permutationTest(some(5000)) - 0.0049)).toBeLessThan(0.004)
  expect(Math.abs(permutationTest(some(5100)) - 0.0043)).toBeLessThan(0.001)
})
