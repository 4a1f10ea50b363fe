// How sure a measured rate or mean is, and whether two differ on the same rows. Pure, and the same at every call.

import { randomWords } from '../random.ts'

/** A value with the bounds of its 95 % interval. */
export interface Estimate {
  value: number
  low: number
  high: number
}

/** The standard normal distribution's 97.5th percentile. */
const Z = 1.959963984540054
const WORD = 2 ** 32
const BOOTSTRAP_SEED = 1
const FLIP_SEED = 2
/** Of more values the normal distribution says the same, and nothing is drawn. */
const MOST_VALUES = 5000
/** Random draws of one interval or test, at most. */
const MOST_DRAWS = 5_000_000
const MOST_RESAMPLES = 10_000
const FEWEST_RESAMPLES = 1000
/** Up to so many differences all their signs are gone through; with more, some are drawn. */
const ALL_SIGNS_UP_TO = 14
/** Sums of the same numbers in another order differ by less. */
const ROUNDING = 1e-9

/** Of `passed` in `rows`: Wilson's score interval (1927), which needs no many rows and never leaves 0 … 1. */
export function passRate(passed: number, rows: number): Estimate {
  if (rows === 0) return { value: 0, low: 0, high: 1 }
  const value = passed / rows
  const spread = Z * Math.sqrt((value * (1 - value)) / rows + (Z / (2 * rows)) ** 2)
  const centre = value + Z ** 2 / (2 * rows)
  const scale = 1 + Z ** 2 / rows
  return {
    value,
    low: passed === 0 ? 0 : (centre - spread) / scale,
    high: passed === rows ? 1 : (centre + spread) / scale,
  }
}

/** A mean with its percentile bootstrap interval (Efron 1979). */
export function bootstrapMean(values: Float64Array): Estimate {
  const { length } = values
  if (length === 0) return { value: 0, low: 0, high: 0 }
  const value = sum(values) / length
  if (values.every((one) => one === values[0])) return { value, low: value, high: value }
  if (length > MOST_VALUES) {
    let squares = 0
    for (const one of values) squares += (one - value) ** 2
    const spread = (Z * Math.sqrt(squares / (length - 1))) / Math.sqrt(length)
    return { value, low: value - spread, high: value + spread }
  }
  const resamples = resamplesOf(length)
  const means = new Float64Array(resamples)
  for (let r = 0; r < resamples; r++) {
    const words = randomWords(length, BOOTSTRAP_SEED, [r, length, 1])
    let total = 0
    for (const word of words) total += values[Math.floor(((word >>> 0) / WORD) * length)]!
    means[r] = total / length
  }
  means.sort()
  return { value, low: percentile(means, 0.025), high: percentile(means, 0.975) }
}

/**
 * McNemar's exact test (1947), two-sided: whether rows that only one of two passed are as often the one's as the
 * other's, by the binomial distribution.
 */
export function mcnemar(onlyFirst: number, onlySecond: number): number {
  const rows = onlyFirst + onlySecond
  const fewer = Math.min(onlyFirst, onlySecond)
  // The logarithm of C(rows, k) / 2^rows, from one k to the next: powers of 2 would vanish from 1,075 rows on.
  let log = -rows * Math.LN2
  let tail = Math.exp(log)
  for (let k = 1; k <= fewer; k++) {
    log += Math.log((rows - k + 1) / k)
    tail += Math.exp(log)
  }
  return Math.min(1, 2 * tail)
}

/**
 * Paired permutation test, two-sided: how often differences of random signs have a mean as far from 0 as these (Fisher
 * 1935). All signs where there are few; else drawn ones, with these counted among them (Phipson and Smyth 2010).
 */
export function permutationTest(differences: Float64Array): number {
  const some = differences.filter((one) => one !== 0)
  const { length } = some
  if (length === 0) return 1
  const found = Math.abs(sum(some)) * (1 - ROUNDING)
  if (length <= ALL_SIGNS_UP_TO) {
    let asFar = 0
    for (let signs = 0; signs < 2 ** length; signs++)
      if (Math.abs(signedSum(some, (i) => ((signs >> i) & 1) === 1)) >= found) asFar++
    return asFar / 2 ** length
  }
  if (length > MOST_VALUES) {
    let squares = 0
    for (const one of some) squares += one ** 2
    return twoSided(sum(some) / Math.sqrt(squares))
  }
  const draws = resamplesOf(length)
  let asFar = 0
  for (let r = 0; r < draws; r++) {
    const words = randomWords(Math.ceil(length / 32), FLIP_SEED, [r, length, 1])
    if (Math.abs(signedSum(some, (i) => ((words[i >> 5]! >>> (i & 31)) & 1) === 1)) >= found)
      asFar++
  }
  return (asFar + 1) / (draws + 1)
}

/** Of a standard normal variable: how often one is as far from 0 (Abramowitz and Stegun 7.1.26, within 1.5e-7). */
function twoSided(z: number): number {
  const x = Math.abs(z) / Math.SQRT2
  const t = 1 / (1 + 0.3275911 * x)
  const terms = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]
  return t * terms.reduceRight((total, term) => total * t + term, 0) * Math.exp(-x * x)
}

const resamplesOf = (length: number) =>
  Math.max(FEWEST_RESAMPLES, Math.min(MOST_RESAMPLES, Math.floor(MOST_DRAWS / length)))

function sum(values: Float64Array): number {
  let total = 0
  for (const one of values) total += one
  return total
}

function signedSum(values: Float64Array, isPlus: (i: number) => boolean): number {
  let total = 0
  for (let i = 0; i < values.length; i++) total += isPlus(i) ? values[i]! : -values[i]!
  return total
}

/** Of sorted values, between the two that are nearest. */
function percentile(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1)
  const below = Math.floor(at)
  const above = Math.min(below + 1, sorted.length - 1)
  return sorted[below]! + (at - below) * (sorted[above]! - sorted[below]!)
}
