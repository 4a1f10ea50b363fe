// Sets elements of a task vector to zero: the smallest, a random part, or the smallest and the largest. The vector comes
// in pieces, in order. Ties are kept in the order of their place.

import type { MergeGroup } from './method.ts'
import { ranking } from './select.ts'

/** What is dropped of one vector. */
export interface Sparsifier {
  /** How often the whole vector must be shown before anything is dropped. */
  readonly looks: number
  look(delta: Float32Array, which: number): void
  /** A walk over the pieces, in order, that drops; `at` is the place of a piece's first element. */
  walk(): (delta: Float32Array, at: number) => void
}

const withoutLooks = (walk: Sparsifier['walk']): Sparsifier => ({ looks: 0, look() {}, walk })
const nothing = withoutLooks(() => () => {})
const everything = withoutLooks(() => (delta) => {
  delta.fill(0)
})

/** Drops of a vector that lies in memory. */
export function sparsify(delta: Float32Array, { looks, look, walk }: Sparsifier): void {
  for (let which = 0; which < looks; which++) look(delta, which)
  walk()(delta, 0)
}

/** Σ |x|, added to what was there before. */
export function sumOfMagnitudes(values: Float32Array, before = 0): number {
  let sum = before
  for (let i = 0; i < values.length; i++) sum += Math.abs(values[i]!)
  return sum
}

/** Keeps the `density` largest magnitudes of `n`, at least one. */
export function keepLargest(n: number, density: number): Sparsifier {
  if (density >= 1 || n === 0) return nothing
  if (density <= 0) return everything
  const k = Math.max(1, Math.trunc(density * n))
  if (k >= n) return nothing
  const { look, found } = ranking(() => [n - k])
  return {
    looks: 2,
    look,
    walk: () => {
      const [{ value, below, equal }] = found() as [ReturnType<typeof found>[number]]
      let left = k - (n - below - equal)
      return (delta) => {
        left = dropBelow(delta, value, left)
      }
    },
  }
}

/** Drops what is smaller than `value`; of what equals it, all but the first `left`. Says how many are left then. */
function dropBelow(delta: Float32Array, value: number, left: number): number {
  // By bits, which are ordered as magnitudes are: a branch that goes either way costs more than all the rest.
  const bits = new Int32Array(delta.buffer, delta.byteOffset, delta.length)
  const least = new Int32Array(Float32Array.of(value).buffer)[0]!
  let rest = left
  for (let i = 0; i < bits.length; i++) {
    const one = bits[i]!
    const magnitude = one & 0x7fffffff
    if (magnitude === least && rest > 0) rest--
    else bits[i] = one & ((least - magnitude) >> 31)
  }
  return rest
}

/** Drops the `gamma` largest magnitudes of `n` and so many of the smallest that `density` stays. */
export function keepMiddle(n: number, density: number, gamma: number): Sparsifier {
  if (density >= 1) return nothing
  const kept = Math.trunc(density * n)
  const from = Math.max(0, n - kept - Math.trunc(gamma * n))
  const to = Math.min(n, from + kept)
  if (to <= from) return everything
  const { look, found } = ranking(() => [from, to - 1])
  return {
    looks: 2,
    look,
    walk: () => {
      const [low, high] = found() as [
        ReturnType<typeof found>[number],
        ReturnType<typeof found>[number],
      ]
      let [equalLow, equalHigh] = [0, 0]
      return (delta) => {
        for (let i = 0; i < delta.length; i++) {
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
    },
  }
}

const PIECE = 65_536

/** Keeps each element with the probability `density`. */
export function keepRandom(density: number, draw: Draw): Sparsifier {
  if (density >= 1) return nothing
  return withoutLooks(() => {
    const drawn = new Float64Array(PIECE)
    return (delta, place) => {
      for (let at = 0; at < delta.length; at += PIECE) {
        const count = Math.min(PIECE, delta.length - at)
        draw(place + at, drawn.subarray(0, count))
        for (let i = 0; i < count; i++) if (drawn[i]! >= density) delta[at + i] = 0
      }
    }
  })
}

/** Keeps an element with a probability that grows with its rank in its row, density ± epsilon. Pieces are whole rows. */
export function keepByRank(
  { dims, density, epsilon }: { dims: readonly number[]; density: number; epsilon: number },
  draw: Draw,
): Sparsifier {
  if (density >= 1) return nothing
  if (density <= 0) return everything
  if (density + epsilon >= 1 || density - epsilon <= 0)
    throw new Error(`density ${density} ± epsilon ${epsilon} leaves (0, 1)`)
  const width = dims.length < 2 ? dims.reduce((n, d) => n * d, 1) : dims.at(-1)!
  return withoutLooks(() => {
    const order = new Float64Array(width)
    const ranks = new Uint32Array(width)
    const drawn = new Float64Array(Math.min(PIECE, width))
    return (delta, place) => {
      const bits = new Uint32Array(delta.buffer, delta.byteOffset, delta.length)
      for (let row = 0; row < delta.length; row += width) {
        // The magnitude's bits above, the place below: 31 + 22 bits are exact in a float64.
        for (let i = 0; i < width; i++) order[i] = (bits[row + i]! & 0x7fffffff) * 4194304 + i
        order.sort()
        for (let rank = 0; rank < width; rank++) ranks[order[rank]! % 4194304] = rank
        for (let at = 0; at < width; at += PIECE) {
          const count = Math.min(PIECE, width - at)
          draw(place + row + at, drawn.subarray(0, count))
          for (let i = 0; i < count; i++) {
            const part = width > 1 ? ranks[at + i]! / (width - 1) : 0
            if (drawn[i]! >= density - epsilon + part * 2 * epsilon) delta[row + at + i] = 0
          }
        }
      }
    }
  })
}

/** Fills `out` with numbers in [0, 1) for the positions from `at` on. */
export type Draw = (at: number, out: Float64Array) => void

/** The draws of one input. */
export const drawAt =
  (random: MergeGroup['random'], input: number): Draw =>
  (at, out) =>
    random(input, at, out)
