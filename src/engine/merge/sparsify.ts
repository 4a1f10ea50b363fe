// Sets elements of a task vector to zero: the smallest, a random part, or the smallest and the largest.
// Ties are kept in the order of their place.

import type { MergeGroup } from './method.ts'
import { rankOf } from './select.ts'

const f = Math.fround

/** Runs `drop`; with `rescale`, what is left is scaled to the sum of magnitudes that was there before. */
export function rescaled(delta: Float32Array, rescale: boolean, drop: () => void): void {
  const before = rescale ? f(sumOfMagnitudes(delta)) : 0
  drop()
  if (!rescale) return
  const after = f(sumOfMagnitudes(delta))
  if (before < 1e-7 || after < 1e-7) return
  const scale = f(before / after)
  for (let i = 0; i < delta.length; i++) delta[i] = delta[i]! * scale
}

function sumOfMagnitudes(values: Float32Array): number {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += Math.abs(values[i]!)
  return sum
}

/** Keeps the `density` largest magnitudes, at least one. */
export function keepLargest(delta: Float32Array, density: number): void {
  const n = delta.length
  if (density >= 1 || n === 0) return
  if (density <= 0) {
    delta.fill(0)
    return
  }
  const k = Math.max(1, Math.trunc(density * n))
  if (k >= n) return
  const { value } = rankOf(delta, n - k)
  let above = 0
  for (let i = 0; i < n; i++) if (Math.abs(delta[i]!) > value) above++
  let equal = k - above
  for (let i = 0; i < n; i++) {
    const magnitude = Math.abs(delta[i]!)
    if (magnitude < value || (magnitude === value && equal-- <= 0)) delta[i] = 0
  }
}

/** Drops the `gamma` largest magnitudes and so many of the smallest that `density` stays. */
export function keepMiddle(delta: Float32Array, density: number, gamma: number): void {
  if (density >= 1) return
  const n = delta.length
  const kept = Math.trunc(density * n)
  const from = Math.max(0, n - kept - Math.trunc(gamma * n))
  const to = Math.min(n, from + kept)
  if (to <= from) {
    delta.fill(0)
    return
  }
  const low = rankOf(delta, from)
  const high = rankOf(delta, to - 1)
  let equalLow = 0
  let equalHigh = 0
  for (let i = 0; i < n; i++) {
    const magnitude = Math.abs(delta[i]!)
    if (magnitude > low.value && magnitude < high.value) continue
    const rank =
      magnitude === low.value
        ? low.below + equalLow++
        : magnitude === high.value
          ? high.below + equalHigh++
          : -1
    if (rank < from || rank >= to) delta[i] = 0
  }
}

const PIECE = 65_536

/** Keeps each element with the probability `density`. */
export function keepRandom(delta: Float32Array, density: number, draw: Draw): void {
  if (density >= 1) return
  const drawn = new Float64Array(Math.min(PIECE, delta.length))
  for (let at = 0; at < delta.length; at += PIECE) {
    const count = Math.min(PIECE, delta.length - at)
    draw(at, drawn)
    for (let i = 0; i < count; i++) if (drawn[i]! >= density) delta[at + i] = 0
  }
}

/** Keeps an element with a probability that grows with its rank in its row, density ± epsilon. */
export function keepByRank(
  delta: Float32Array,
  { dims, density, epsilon }: { dims: readonly number[]; density: number; epsilon: number },
  draw: Draw,
): void {
  if (density >= 1) return
  if (density <= 0) {
    delta.fill(0)
    return
  }
  if (density + epsilon >= 1 || density - epsilon <= 0)
    throw new Error(`density ${density} ± epsilon ${epsilon} leaves (0, 1)`)
  const width = dims.length < 2 ? delta.length : dims.at(-1)!
  const order = new Float64Array(width)
  const ranks = new Uint32Array(width)
  const drawn = new Float64Array(Math.min(PIECE, width))
  const bits = new Uint32Array(delta.buffer, delta.byteOffset, delta.length)
  for (let row = 0; row < delta.length; row += width) {
    // The magnitude's bits above, the place below: 31 + 22 bits are exact in a float64.
    for (let i = 0; i < width; i++) order[i] = (bits[row + i]! & 0x7fffffff) * 4194304 + i
    order.sort()
    for (let rank = 0; rank < width; rank++) ranks[order[rank]! % 4194304] = rank
    for (let at = 0; at < width; at += PIECE) {
      const count = Math.min(PIECE, width - at)
      draw(row + at, drawn)
      for (let i = 0; i < count; i++) {
        const place = width > 1 ? ranks[at + i]! / (width - 1) : 0
        if (drawn[i]! >= density - epsilon + place * 2 * epsilon) delta[row + at + i] = 0
      }
    }
  }
}

/** Fills `out` with numbers in [0, 1) for the positions from `at` on. */
export type Draw = (at: number, out: Float64Array) => void

/** The draws of one input. */
export const drawAt =
  (random: MergeGroup['random'], input: number): Draw =>
  (at, out) =>
    random(input, at, out)

export const drawFor = ({ random }: MergeGroup, input: number): Draw => drawAt(random, input)
