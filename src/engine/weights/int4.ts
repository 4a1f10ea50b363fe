// The 4-bit copy of a model's frozen projections: made once per base model, mapped by every session.
// A file that has such blocks already (Q4_0, Q4_1, Q4_K, Q8_0 of the head) keeps its levels and scales exactly; of an
// offset only what is left beside a whole zero point is rounded, to four bits.

import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import type { MappedTensor, MappedWeights } from './checkpoint.ts'
import { nearest } from './int8.ts'
import { toMapped } from './mapped.ts'
import { readSafetensorsHeader } from './safetensors.ts'
import { readTensor } from './stored-tensor.ts'
import { type TensorSource, writeTensorFile } from './tensor-file.ts'

// Counts up whenever the bytes would come out otherwise.
const FORMAT_VERSION = 2

/** Values of one row that share a scale. */
export const BLOCK = 32

/**
 * A matrix [out, n·32] = scale · (quants − zeros), with one scale and one zero point for each block of a row. Of four bits it
 * is W [out, in] and behind it what is left of each block's offset [out, in/32], which meets the block's sum of x; of
 * eight bits it is 16 · d · (high − 8) and d · low side by side, which both meet x.
 */
export interface MappedInt4Block {
  readonly bits: 4 | 8
  /** [out, n, 16] uint8, the low half of each byte first. */
  readonly quants: MappedTensor
  /** [out, n] */
  readonly scale: MappedTensor
  /** [out, ⌈n/2⌉] uint8, packed like the quants. */
  readonly zeros: MappedTensor
}

/** By `blockKey`. */
export type MappedInt4 = ReadonlyMap<string, MappedInt4Block>

/** Projections that read the same input, and in how many bits they are kept. */
export interface Int4Group {
  readonly key: string
  readonly members: readonly string[]
  readonly bits: 4 | 8
}

/** Maps the 4-bit copy in `cacheDir`, and makes it if it is not there; one group at a time is in memory. */
export async function mapInt4(
  weights: MappedWeights,
  cacheDir: string,
  groups: readonly Int4Group[],
): Promise<MappedInt4> {
  const folder = resolve(cacheDir)
  const file = join(folder, `${weights.id}.int4-${FORMAT_VERSION}.safetensors`)
  if (!existsSync(file)) {
    await mkdir(folder, { recursive: true })
    await writeTensorFile(
      file,
      groups.flatMap((group) => sourcesOf(group, weights)),
    )
  }
  const tensors = await toMapped([...(await readSafetensorsHeader(file)).tensors.values()])
  const part = (key: string, name: string) => {
    const tensor = tensors.get(`${key}.${name}`)
    if (!tensor) throw new Error(`${basename(file)}: ${key}.${name} is missing; delete the file`)
    return tensor
  }
  return new Map(
    groups.map(({ key, bits }) => [
      key,
      { bits, quants: part(key, 'quants'), scale: part(key, 'scale'), zeros: part(key, 'zeros') },
    ]),
  )
}

/** The group's tensors for the file; its matrix is read and quantised when the first of them is written. */
function sourcesOf({ key, members, bits }: Int4Group, weights: MappedWeights): TensorSource[] {
  const tensors = members.map((path) => {
    const tensor = weights.tensors.get(`${path}.weight`)
    if (!tensor) throw new Error(`${weights.id}: ${path}.weight is missing`)
    return tensor
  })
  const inner = tensors[0]!.dims[1]!
  const out = tensors.reduce((sum, { dims }) => sum + dims[0]!, 0)
  const count = blocksIn(inner, bits)
  let made: Int4Matrix | undefined
  const make = async () => {
    const matrix = new Float32Array(out * inner)
    let at = 0
    for (const tensor of tensors) {
      matrix.set(await readTensor({ ...tensor, dtype: 'F32' }), at)
      at += tensor.dims[0]! * inner
    }
    return bits === 8 ? quantise8(matrix, out, inner) : quantise4(matrix, out, inner)
  }
  const parts = {
    quants: { dims: [out, count, BLOCK / 2], dtype: 'U8' as const },
    scale: { dims: [out, count], dtype: 'F32' as const },
    zeros: { dims: [out, Math.ceil(count / 2)], dtype: 'U8' as const },
  }
  const names = ['quants', 'scale', 'zeros'] as const
  return names.map((name, i) => ({
    name: `${key}.${name}`,
    ...parts[name],
    async *chunks() {
      made ??= await make()
      yield made[name]!
      if (i === names.length - 1) made = undefined
    },
  }))
}

interface Int4Matrix {
  readonly quants: Uint8Array
  readonly scale: Float32Array
  readonly zeros: Uint8Array
}

/** Blocks of a row: those of W and of what is left of their offsets, or those of both halves. */
const blocksIn = (inner: number, bits: 4 | 8): number =>
  bits === 8 ? (2 * inner) / BLOCK : inner / BLOCK + Math.ceil(inner / BLOCK / BLOCK)

/** An empty matrix of so many blocks a row, and what puts levels 0 … 15, scale and zero point of one into it. */
function blocked(out: number, count: number) {
  const bytes = Math.ceil(count / 2)
  const quants = new Uint8Array(out * count * (BLOCK / 2))
  const scale = new Float32Array(out * count)
  const zeros = new Uint8Array(out * bytes)
  const put = (o: number, b: number, levels: Uint8Array, d: number, zero: number): void => {
    const block = o * count + b
    for (let i = 0; i < BLOCK; i += 2)
      quants[(block * BLOCK + i) / 2] = levels[i]! | (levels[i + 1]! << 4)
    scale[block] = d
    zeros[o * bytes + (b >> 1)]! |= zero << (4 * (b & 1))
  }
  return { quants, scale, zeros, put }
}

/** W [out, in] in blocks of four bits: a block's w = d · level + m is d · (level − zero) and a rest, the same for all of it. */
export function quantise4(matrix: Float32Array, out: number, inner: number): Int4Matrix {
  const count = inner / BLOCK
  const { put, ...made } = blocked(out, blocksIn(inner, 4))
  const levels = new Uint8Array(BLOCK)
  const rests = new Float32Array(Math.ceil(count / BLOCK) * BLOCK)
  for (let o = 0; o < out; o++) {
    for (let b = 0; b < count; b++) {
      const from = (o * count + b) * BLOCK
      const { d, m } = fitted(matrix.subarray(from, from + BLOCK), levels)
      const zero = zeroOf(d, m)
      rests[b] = m + zero * d
      put(o, b, levels, d, zero)
    }
    for (let at = 0; at < count; at += BLOCK) {
      const rest = rests.subarray(at, at + BLOCK)
      const step = rest.reduce((most, r) => Math.max(most, Math.abs(r)), 0) / 7.5 || 1
      for (let i = 0; i < BLOCK; i++) levels[i] = Math.min(15, nearest(rest[i]! / step + 8))
      put(o, count + at / BLOCK, levels, step, 8)
    }
  }
  return made
}

/** W [out, in] in blocks of eight bits, as two matrices of four: W = d · (16 · (high − 8) + low). */
export function quantise8(matrix: Float32Array, out: number, inner: number): Int4Matrix {
  const count = inner / BLOCK
  const { put, ...made } = blocked(out, blocksIn(inner, 8))
  const high = new Uint8Array(BLOCK)
  const low = new Uint8Array(BLOCK)
  for (let o = 0; o < out; o++)
    for (let b = 0; b < count; b++) {
      const from = (o * count + b) * BLOCK
      const values = matrix.subarray(from, from + BLOCK)
      let most = 0
      for (const w of values) most = Math.max(most, Math.abs(w))
      const d = Math.fround(most / 127) || 1
      for (let i = 0; i < BLOCK; i++) {
        const q = nearest(values[i]! / d) + 128
        high[i] = q >> 4
        low[i] = q & 15
      }
      put(o, b, high, 16 * d, 8)
      put(o, count + b, low, d, 0)
    }
  return made
}

/** The level that is nearest to zero where w = d · level + m. */
const zeroOf = (d: number, m: number): number => Math.min(15, Math.max(0, nearest(-m / d)))

/** A value counts as one of a grid if it is off by less than this share of a step: sums in float32 round. */
const NEAR = 1e-3

/**
 * Finds w ≈ d · level + m with levels 0 … 15 for one block, and zero near one of them: those that it was made of, where it
 * was, else the grid from its least to its largest value, moved to where the squares are least. A block that lies apart
 * from zero gets a grid that reaches to it.
 */
function fitted(values: Float32Array, levels: Uint8Array): { d: number; m: number } {
  let least = Number.POSITIVE_INFINITY
  let most = Number.NEGATIVE_INFINITY
  for (const w of values) {
    if (w < least) least = w
    if (w > most) most = w
  }
  if (!(most > least)) {
    levels.fill(least > 0 ? 1 : 0) // one step from the zero point
    return { d: Math.abs(least) || 1, m: Math.min(0, least) }
  }
  let gap = Number.POSITIVE_INFINITY
  for (const w of values) if (w > least && w - least < gap) gap = w - least
  // The lowest step above the least value is some number of steps of the grid.
  for (let k = 1; k <= 15; k++) {
    const steps = nearest(((most - least) / gap) * k)
    if (steps > 15) break
    const d = Math.fround((most - least) / steps)
    if (zeroOf(d, least) === nearest(-least / d) && onGrid(values, levels, least, d))
      return { d, m: least }
  }
  if (least <= 0 && most >= 0) return leastSquares(values, levels, least, most)
  const d = Math.fround(Math.max(most, -least) / 15)
  const m = least > 0 ? 0 : -15 * d
  for (let i = 0; i < BLOCK; i++) levels[i] = nearest((values[i]! - m) / d)
  return { d, m }
}

function onGrid(values: Float32Array, levels: Uint8Array, m: number, d: number): boolean {
  for (let i = 0; i < BLOCK; i++) {
    const level = nearest((values[i]! - m) / d)
    if (Math.abs(values[i]! - m - level * d) > NEAR * d) return false
    levels[i] = level
  }
  return true
}

function leastSquares(values: Float32Array, levels: Uint8Array, least: number, most: number) {
  let d = (most - least) / 15
  let m = least
  for (let round = 0; round < 3; round++) {
    let [n, s, ss, w, sw] = [0, 0, 0, 0, 0]
    for (let i = 0; i < BLOCK; i++) {
      const level = Math.min(15, Math.max(0, nearest((values[i]! - m) / d)))
      levels[i] = level
      n++
      s += level
      ss += level * level
      w += values[i]!
      sw += level * values[i]!
    }
    const determinant = n * ss - s * s
    if (determinant === 0) break
    d = (n * sw - s * w) / determinant
    m = (w - d * s) / n
  }
  for (let i = 0; i < BLOCK; i++)
    levels[i] = Math.min(15, Math.max(0, nearest((values[i]! - m) / d)))
  return { d: Math.fround(d), m: Math.fround(m) }
}
