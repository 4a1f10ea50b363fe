// float32 → llama.cpp's Q4_K and Q5_K: eight groups of 32 values, each with a scale and a minimum of 6 bits.
// The scales are searched as its reference does: guesses from the best minimum so far, each bettered by weighted
// least squares.

import { floatToHalf, halfToFloat } from './halves.ts'
import { putHalf } from './quantise-32.ts'

const f = Math.fround

/** What tells the two kinds apart: the highest level, and the guesses at a scale around it. */
interface Kind {
  readonly top: number
  readonly first: number
  readonly guesses: number
}

const FOUR_BITS: Kind = { top: 15, first: -1, guesses: 21 }
const FIVE_BITS: Kind = { top: 31, first: -0.5, guesses: 16 }

export function writeQ4_K(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 144, from += 256) {
    out.fill(0, at, at + 144)
    for (const [g, levels] of groupsOf(values, from, { out, at, kind: FOUR_BITS }))
      for (let i = 0; i < 32; i++) out[at + 16 + 32 * (g >> 1) + i]! |= levels[i]! << (4 * (g & 1))
  }
}

/** The fifth bits lie together, before the lower four. */
export function writeQ5_K(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 176, from += 256) {
    out.fill(0, at, at + 176)
    for (const [g, levels] of groupsOf(values, from, { out, at, kind: FIVE_BITS }))
      for (let i = 0; i < 32; i++) {
        out[at + 16 + i]! |= (levels[i]! >> 4) << g
        out[at + 48 + 32 * (g >> 1) + i]! |= (levels[i]! & 15) << (4 * (g & 1))
      }
  }
}

/** Writes the scales of a block, and gives the levels of each of its groups. */
function* groupsOf(
  values: Float32Array,
  from: number,
  { out, at, kind }: { out: Uint8Array; at: number; kind: Kind },
): Generator<[g: number, levels: ArrayLike<number>]> {
  const scales = new Float32Array(8)
  const minima = new Float32Array(8)
  const found = Array.from({ length: 8 }, () => new Uint8Array(32))
  const groupOf = (g: number) => values.subarray(from + 32 * g, from + 32 * g + 32)
  for (let g = 0; g < 8; g++) [scales[g], minima[g]] = searchScale(groupOf(g), found[g]!, kind)
  const most = Math.max(...scales, 0)
  const lowest = Math.max(...minima, 0)
  putHalf(out, at, f(most / 63))
  putHalf(out, at + 2, f(lowest / 63))
  const d = halfToFloat(floatToHalf(f(most / 63)))
  const dmin = halfToFloat(floatToHalf(f(lowest / 63)))
  for (let g = 0; g < 8; g++) {
    const scale = six(scales[g]!, most)
    const minimum = six(minima[g]!, lowest)
    putScales(out, at + 4, g, scale, minimum)
    const step = f(d * scale)
    const offset = f(dmin * minimum)
    const level = levelOf(kind)
    // Without a step the levels say nothing, and stay as the search had them.
    yield [g, step === 0 ? found[g]! : groupOf(g).map((x) => level(f(f(x + offset) / step)))]
  }
}

/** Of 63 parts of the largest. */
const six = (value: number, most: number) =>
  most > 0 ? Math.min(63, nearest(f(f(63 / most) * value))) : 0

function putScales(out: Uint8Array, at: number, g: number, scale: number, minimum: number) {
  if (g < 4) {
    out[at + g] = scale
    out[at + 4 + g] = minimum
    return
  }
  out[at + 4 + g] = (scale & 15) | ((minimum & 15) << 4)
  out[at + g - 4]! |= (scale >> 4) << 6
  out[at + g]! |= (minimum >> 4) << 6
}

/** Scale and negated minimum of 32 values, and their `chosen` levels; what is large counts more. */
function searchScale(
  x: Float32Array,
  chosen: Uint8Array,
  kind: Kind,
): [scale: number, minimum: number] {
  const { top, first, guesses } = kind
  const level = levelOf(kind)
  chosen.fill(0)
  let squares = 0
  for (const v of x) squares = f(squares + f(v * v))
  const mean = f(Math.sqrt(f(squares / 32)))
  const w = x.map((v) => mean + Math.abs(v))
  let least = x[0]!
  let most = x[0]!
  let sumW = 0
  let sumX = 0
  for (let i = 0; i < 32; i++) {
    least = Math.min(least, x[i]!)
    most = Math.max(most, x[i]!)
    sumW = f(sumW + w[i]!)
    sumX = f(sumX + f(w[i]! * x[i]!))
  }
  least = Math.min(least, 0)
  if (most === least) return [0, -least]
  const levels = new Uint8Array(32)
  // From where levels are counted: the best minimum so far, so that each guess starts where the last good one ended.
  let minimum = least
  const spread = (from: number) => {
    const inverse = f(from / f(most - minimum))
    for (let i = 0; i < 32; i++) levels[i] = level(f(inverse * f(x[i]! - minimum)))
    return inverse
  }
  const errorOf = (scale: number, minimum: number) => {
    let error = 0
    for (let i = 0; i < 32; i++) {
      const off = f(f(f(scale * levels[i]!) + minimum) - x[i]!)
      error = f(error + f(w[i]! * f(off * off)))
    }
    return error
  }
  let scale = f(1 / spread(top))
  let best = errorOf(scale, minimum)
  chosen.set(levels)
  for (let guess = 0; guess < guesses; guess++) {
    spread(f(f(first + f(f(0.1) * guess)) + top))
    let sumL = 0
    let sumL2 = 0
    let sumXL = 0
    for (let i = 0; i < 32; i++) {
      const l = levels[i]!
      sumL = f(sumL + f(w[i]! * l))
      sumL2 = f(sumL2 + f(f(w[i]! * l) * l))
      sumXL = f(sumXL + f(f(w[i]! * l) * x[i]!))
    }
    const D = f(f(sumW * sumL2) - f(sumL * sumL))
    if (!(D > 0)) continue
    let s = f(f(f(sumW * sumXL) - f(sumX * sumL)) / D)
    let m = f(f(f(sumL2 * sumX) - f(sumL * sumXL)) / D)
    if (m > 0) {
      m = 0
      s = f(sumXL / sumL2)
    }
    const error = errorOf(s, m)
    if (!(error < best)) continue
    ;[best, scale, minimum] = [error, s, m]
    chosen.set(levels)
  }
  return [scale, -minimum]
}

/** Ties to even, as the reference's trick with the mantissa. */
function nearest(x: number): number {
  const whole = Math.floor(x)
  const over = x - whole
  return over > 0.5 || (over === 0.5 && whole % 2 !== 0) ? whole + 1 : whole
}

const levelOf =
  ({ top }: Kind) =>
  (x: number) =>
    Math.min(top, Math.max(0, nearest(x)))
