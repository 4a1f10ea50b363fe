// Logits of one position → the next token. Knows numbers only; no text, no batch, no state.

import { uniform } from '../random.ts'
import type { Sampling } from './request.ts'

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
  const { temperature, top_p, seed } = sampling
  const best = argmax(logits)
  if (temperature === 0 || top_p === 0) return { token: best }

  // Not normalised: p[i] = exp((x[i] - max) / temperature), so the best has 1.
  const max = logits[best]!
  const p = new Float64Array(logits.length)
  let total = 0
  for (let i = 0; i < logits.length; i++) {
    const value = Math.exp((logits[i]! - max) / temperature)
    p[i] = Number.isNaN(value) ? 0 : value // a NaN logit is an impossible token
    total += p[i]!
  }

  const draw = uniform(seed, choice, position)
  if (top_p >= 1) return { token: pick(p, draw * total, best) }

  // Walking in id order, not in order of probability, keeps a draw stable when two
  // probabilities change places by a rounding error.
  const last = nucleusEnd(p, top_p * total)
  let kept = 0
  for (let i = 0; i < p.length; i++) {
    if (before(p, last, i)) p[i] = 0
    kept += p[i]!
  }
  return { token: pick(p, draw * kept, best) }
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
 * The last token of the smallest set of most probable tokens that together have `mass`:
 * quickselect by mass, so that no vocabulary is ever sorted.
 */
function nucleusEnd(p: Float64Array, mass: number): number {
  // Even all tokens below this share together cannot hold what lies outside the nucleus.
  let total = 0
  for (let i = 0; i < p.length; i++) total += p[i]!
  const floor = (total - mass) / p.length
  const ids = new Int32Array(p.length)
  let to = 0
  for (let i = 0; i < p.length; i++) if (p[i]! > 0 && p[i]! >= floor) ids[to++] = i

  let from = 0
  let wanted = mass
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
      front += p[id]!
    }
    ids[to - 1] = ids[split]!
    ids[split] = pivot

    if (front >= wanted) to = split
    else if (front + p[pivot]! >= wanted || split + 1 === to) return pivot
    else {
      wanted -= front + p[pivot]!
      from = split + 1
    }
  }
  return ids[from]!
}
