// Logits of one position → the next token. Knows numbers only; no text, no batch, no state.
// Order, as in vLLM: penalties and bias, temperature, min_p, top_k, top_p, each within what the one before left.

import { uniform } from '../random.ts'
import type { Sampling } from './request.ts'

/** What has been read and written before this position. */
export interface Before {
  readonly prompt: readonly number[]
  readonly tokens: readonly number[]
}

/**
 * The logits after repetition, frequency and presence penalty and bias, in that order. The repetition penalty is
 * that of CTRL (arXiv 1909.05858) over prompt and answer, the others OpenAI's, over the answer alone:
 * x[j] − count[j] · frequency − (count[j] > 0) · presence.
 */
export function penalise(logits: Float32Array, sampling: Sampling, before: Before): Float32Array {
  const { presence_penalty = 0, frequency_penalty = 0, repetition_penalty = 1 } = sampling
  const bias = Object.entries(sampling.logit_bias ?? {})
  const counted = presence_penalty !== 0 || frequency_penalty !== 0
  if (repetition_penalty === 1 && !counted && bias.length === 0) return logits

  const x = logits.slice()
  if (repetition_penalty !== 1)
    for (const id of new Set([...before.prompt, ...before.tokens]))
      x[id] = x[id]! > 0 ? x[id]! / repetition_penalty : x[id]! * repetition_penalty
  if (counted) {
    for (const id of before.tokens) x[id]! -= frequency_penalty
    for (const id of new Set(before.tokens)) x[id]! -= presence_penalty
  }
  for (const [id, value] of bias) x[Number(id)]! += value
  return x
}

/** The logits with all tokens impossible but those whose bit is set: bit i % 32 of word i / 32. */
export function only(logits: Float32Array, allowed: Int32Array): Float32Array {
  const x = logits.slice()
  for (let i = 0; i < x.length; i++)
    if (!((allowed[i >> 5]! >>> (i & 31)) & 1)) x[i] = Number.NEGATIVE_INFINITY
  return x
}

/**
 * Chooses a token. Temperature 0 takes the highest logit, the lowest id among equals; otherwise the
 * draw depends on (seed, choice, position) and the logits alone.
 */
export function sample(
  logits: Float32Array,
  sampling: Sampling,
  choice: number,
  position: number,
): { token: number } {
  const { temperature, top_p, top_k = 0, min_p = 0, seed } = sampling
  const best = argmax(logits)
  if (temperature === 0 || top_p === 0) return { token: best }

  // Not normalised: p[i] = exp((x[i] - max) / temperature), so the best has 1.
  const max = logits[best]!
  const p = new Float64Array(logits.length)
  const steps = STEPS / temperature
  let total = 0
  for (let i = 0; i < logits.length; i++) {
    const value = power((max - logits[i]!) * steps)
    if (value < min_p) continue
    p[i] = value
    total += value
  }
  if (top_k > 0 && top_k < p.length) {
    keep(p, lastOf(possible(p), p, { wanted: top_k, count: true }))
    total = sum(p)
  }
  if (top_p < 1) {
    const mass = top_p * total
    // Even all tokens below this share together cannot hold what lies outside the nucleus.
    keep(p, lastOf(possible(p, (total - mass) / p.length), p, { wanted: mass }))
    total = sum(p)
  }
  return { token: pick(p, uniform(seed, choice, position) * total, best) }
}

function sum(p: Float64Array): number {
  let total = 0
  for (let i = 0; i < p.length; i++) total += p[i]!
  return total
}

/** Steps into which a unit of the exponent is cut. */
const STEPS = 64
const POWERS = Float64Array.from({ length: 64 * STEPS }, (_, i) => Math.exp(-i / STEPS))

/**
 * e^(−s/64) within 1e-11 of itself, three times as fast as Math.exp; 0 below e^−64, which a whole vocabulary of adds less to
 * the best one's 1 than it is rounded by, and for NaN: an impossible token.
 */
function power(s: number): number {
  if (!(s < POWERS.length)) return 0
  const n = s | 0
  const r = (n - s) / STEPS
  return POWERS[n]! * (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r / 24))))
}

/** The lowest id with the highest logit. */
export function argmax(logits: Float32Array): number {
  let best = -1
  let max = Number.NEGATIVE_INFINITY
  for (let i = 0; i < logits.length; i++) {
    if (logits[i]! > max) {
      max = logits[i]!
      best = i
    }
  }
  if (best < 0 || max === Number.POSITIVE_INFINITY)
    throw new Error(
      `Logits have no finite maximum: ${logits.length} values, the highest is ${max}.`,
    )
  return best
}

function pick(p: Float64Array, mass: number, otherwise: number): number {
  let left = mass
  let token = otherwise
  for (let i = 0; i < p.length; i++) {
    if (p[i] === 0) continue
    token = i
    left -= p[i]!
    if (left < 0) return i
  }
  return token // the rounding of the sum left nothing over: the last possible one
}

/** Order of probability, the lower id first among equals. */
const before = (p: Float64Array, a: number, b: number) => p[a]! > p[b]! || (p[a] === p[b] && a < b)

/**
 * Makes impossible what comes after `last` in order of probability. Draws walk in id order, so that
 * one stays the same when two probabilities change places by a rounding error.
 */
function keep(p: Float64Array, last: number): void {
  for (let i = 0; i < p.length; i++) if (before(p, last, i)) p[i] = 0
}

/** Ids of tokens that are possible and have at least this much. */
function possible(p: Float64Array, floor = 0): Int32Array {
  const ids = new Int32Array(p.length)
  let count = 0
  for (let i = 0; i < p.length; i++) if (p[i]! > 0 && p[i]! >= floor) ids[count++] = i
  return ids.subarray(0, count)
}

/**
 * The last of the fewest most probable of `ids` that together have the mass, or the count, that is wanted:
 * quickselect by mass, so that no vocabulary is ever sorted. Reorders `ids`.
 */
function lastOf(
  ids: Int32Array,
  p: Float64Array,
  { wanted, count = false }: { wanted: number; count?: boolean },
): number {
  let from = 0
  let to = ids.length
  while (to - from > 1) {
    // Everything before the pivot goes to the front, the pivot right behind it.
    const middle = (from + to) >> 1
    const pivot = ids[middle]!
    ids[middle] = ids[to - 1]!
    let split = from
    let front = 0
    for (let i = from; i < to - 1; i++) {
      const id = ids[i]!
      if (!before(p, id, pivot)) continue
      ids[i] = ids[split]!
      ids[split++] = id
      front += count ? 1 : p[id]!
    }
    ids[to - 1] = ids[split]!
    ids[split] = pivot

    const own = count ? 1 : p[pivot]!
    if (front >= wanted) to = split
    else if (front + own >= wanted || split + 1 === to) return pivot
    else {
      wanted -= front + own
      from = split + 1
    }
  }
  return ids[from]!
}
