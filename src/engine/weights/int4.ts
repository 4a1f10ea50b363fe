// The 4-bit copy of a model's frozen projections: made once per base model, mapped by every session.
// A file that has such blocks already (Q4_0, Q4_1, Q4_K, Q8_0 of the head) comes out exactly as it is.

import { existsSync } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import type { MappedTensor, MappedWeights } from './checkpoint.ts'
import { toMapped } from './mapped.ts'
import { readSafetensorsHeader } from './safetensors.ts'
import { readTensor } from './stored-tensor.ts'
import { type TensorSource, writeTensorFile } from './tensor-file.ts'

// Counts up whenever the bytes would come out otherwise.
const FORMAT_VERSION = 1

/** Values of one row that share a scale. */
export const BLOCK = 32

/**
 * W [out, in] = scale · (quants − 8) + offset, with one scale and one offset for each block of a row; of eight bits
 * W = 16 · scale · (high − 8) + scale · low, two such matrices over the same scales and no offset.
 */
export type MappedInt4Block =
  | {
      readonly bits: 4
      /** [out, in/32, 16] uint8, the low half of each byte first. */
      readonly quants: MappedTensor
      /** [out, in/32] */
      readonly scale: MappedTensor
      /** [in/32, out] */
      readonly offset: MappedTensor
    }
  | {
      readonly bits: 8
      readonly high: MappedTensor
      readonly low: MappedTensor
      readonly high_scale: MappedTensor
      readonly low_scale: MappedTensor
    }

export interface MappedInt4 {
  /** By `blockKey`. */
  readonly blocks: ReadonlyMap<string, MappedInt4Block>
  /** Every 4-bit block is the file's own: nothing was rounded. */
  readonly exact: boolean
}

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
  const path = (kind: string) =>
    join(folder, `${weights.id}.int4-${FORMAT_VERSION}${kind}.safetensors`)
  const known = ['-exact', ''].map(path).find((file) => existsSync(file))
  const file = known ?? (await convert(weights, folder, groups, path))
  const tensors = await toMapped([...(await readSafetensorsHeader(file)).tensors.values()])
  const part = (key: string, name: string) => {
    const tensor = tensors.get(`${key}.${name}`)
    if (!tensor) throw new Error(`${basename(file)}: ${key}.${name} is missing; delete the file`)
    return tensor
  }
  const blocks = new Map<string, MappedInt4Block>()
  for (const { key, bits } of groups)
    blocks.set(
      key,
      bits === 4
        ? {
            bits,
            quants: part(key, 'quants'),
            scale: part(key, 'scale'),
            offset: part(key, 'offset'),
          }
        : {
            bits,
            high: part(key, 'high'),
            low: part(key, 'low'),
            high_scale: part(key, 'high_scale'),
            low_scale: part(key, 'low_scale'),
          },
    )
  return { blocks, exact: file === path('-exact') }
}

async function convert(
  weights: MappedWeights,
  folder: string,
  groups: readonly Int4Group[],
  path: (kind: string) => string,
): Promise<string> {
  await mkdir(folder, { recursive: true })
  const exactness = { exact: true }
  const sources = groups.flatMap((group) => sourcesOf(group, weights, exactness))
  // Whether nothing was rounded is known at the end, so the name is chosen then.
  const file = path('')
  await writeTensorFile(file, sources)
  if (!exactness.exact) return file
  await rename(file, path('-exact'))
  return path('-exact')
}

/** The group's tensors for the file; its matrix is read and quantised when the first of them is written. */
function sourcesOf(
  { key, members, bits }: Int4Group,
  weights: MappedWeights,
  exactness: { exact: boolean },
): TensorSource[] {
  const tensors = members.map((path) => {
    const tensor = weights.tensors.get(`${path}.weight`)
    if (!tensor) throw new Error(`${weights.id}: ${path}.weight is missing`)
    return tensor
  })
  const inner = tensors[0]!.dims[1]!
  const out = tensors.reduce((sum, { dims }) => sum + dims[0]!, 0)
  const count = inner / BLOCK
  let made: Readonly<Record<string, ArrayBufferView>> | undefined
  const make = async () => {
    const matrix = new Float32Array(out * inner)
    let at = 0
    for (const tensor of tensors) {
      matrix.set(await readTensor({ ...tensor, dtype: 'F32' }), at)
      at += tensor.dims[0]! * inner
    }
    if (bits === 8) return { ...quantise8(matrix, out, inner) }
    const { exact, ...parts } = quantise4(matrix, out, inner)
    if (!exact) exactness.exact = false
    return parts
  }
  const nibbles = { dims: [out, count, BLOCK / 2], dtype: 'U8' as const }
  const scales = { dims: [out, count], dtype: 'F32' as const }
  const parts =
    bits === 4
      ? { quants: nibbles, scale: scales, offset: { dims: [count, out], dtype: 'F32' as const } }
      : { high: nibbles, low: nibbles, high_scale: scales, low_scale: scales }
  const names = Object.keys(parts)
  return Object.entries(parts).map(([name, { dims, dtype }], i) => ({
    name: `${key}.${name}`,
    dims,
    dtype,
    async *chunks() {
      made ??= await make()
      yield made[name]!
      if (i === names.length - 1) made = undefined
    },
  }))
}

/** W [out, in] as 4-bit blocks; `exact` where every value comes back as it was. */
export function quantise4(matrix: Float32Array, out: number, inner: number) {
  const count = inner / BLOCK
  const quants = new Uint8Array((out * inner) / 2)
  const scale = new Float32Array(out * count)
  const offset = new Float32Array(count * out)
  const levels = new Uint8Array(BLOCK)
  let exact = true
  for (let o = 0; o < out; o++)
    for (let b = 0; b < count; b++) {
      const block = o * count + b
      const values = matrix.subarray(block * BLOCK, (block + 1) * BLOCK)
      const { d, m, kept } = fitted(values, levels)
      exact &&= kept
      scale[block] = d
      offset[b * out + o] = m + 8 * d
      pack(levels, quants, block * (BLOCK / 2))
    }
  return { quants, scale, offset, exact }
}

/** W [out, in] as 8-bit blocks in two halves of four bits each: W = d · (16 · (high − 8) + low). */
export function quantise8(matrix: Float32Array, out: number, inner: number) {
  const blocks = (out * inner) / BLOCK
  const high = new Uint8Array((out * inner) / 2)
  const low = new Uint8Array((out * inner) / 2)
  const high_scale = new Float32Array(blocks)
  const low_scale = new Float32Array(blocks)
  const highs = new Uint8Array(BLOCK)
  const lows = new Uint8Array(BLOCK)
  for (let block = 0; block < blocks; block++) {
    const values = matrix.subarray(block * BLOCK, (block + 1) * BLOCK)
    let most = 0
    for (const w of values) most = Math.max(most, Math.abs(w))
    const d = Math.fround(most / 127) || 1
    low_scale[block] = d
    high_scale[block] = 16 * d
    for (let i = 0; i < BLOCK; i++) {
      const q = Math.round(values[i]! / d) + 128
      highs[i] = q >> 4
      lows[i] = q & 15
    }
    pack(highs, high, block * (BLOCK / 2))
    pack(lows, low, block * (BLOCK / 2))
  }
  return { high, low, high_scale, low_scale }
}

function pack(levels: Uint8Array, into: Uint8Array, at: number): void {
  for (let i = 0; i < BLOCK; i += 2) into[at + i / 2] = levels[i]! | (levels[i + 1]! << 4)
}

/** A value counts as kept if it is off by less than this share of a step: sums in float32 round. */
const KEPT = 1e-3

/**
 * Finds w ≈ d · level + m with levels 0 … 15 for one block: those that it was made of, where it was, else the grid
 * from its least to its largest value, moved to where the squares are least.
 */
function fitted(values: Float32Array, levels: Uint8Array): { d: number; m: number; kept: boolean } {
  let least = Number.POSITIVE_INFINITY
  let most = Number.NEGATIVE_INFINITY
  for (const w of values) {
    if (w < least) least = w
    if (w > most) most = w
  }
  if (!(most > least)) {
    levels.fill(0)
    return { d: 0, m: least, kept: true }
  }
  let gap = Number.POSITIVE_INFINITY
  for (const w of values) if (w > least && w - least < gap) gap = w - least
  // The lowest step above the least value is some number of steps of the grid.
  for (let k = 1; k <= 15; k++) {
    const steps = Math.round(((most - least) / gap) * k)
    if (steps > 15) break
    const d = Math.fround((most - least) / steps)
    if (onGrid(values, levels, least, d)) return { d, m: least, kept: true }
  }
  return { ...leastSquares(values, levels, least, most), kept: false }
}

function onGrid(values: Float32Array, levels: Uint8Array, m: number, d: number): boolean {
  for (let i = 0; i < BLOCK; i++) {
    const level = Math.round((values[i]! - m) / d)
    if (Math.abs(values[i]! - m - level * d) > KEPT * d) return false
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
      const level = Math.min(15, Math.max(0, Math.round((values[i]! - m) / d)))
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
    levels[i] = Math.min(15, Math.max(0, Math.round((values[i]! - m) / d)))
  return { d: Math.fround(d), m: Math.fround(m) }
}
