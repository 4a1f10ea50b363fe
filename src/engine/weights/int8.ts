// The int8 copy of a model's frozen projections, made once per base model and mapped by every session.

import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import type { MappedTensor, MappedWeights } from './checkpoint.ts'
import { toMapped } from './mapped.ts'
import { readSafetensorsHeader } from './safetensors.ts'
import { readTensor } from './stored-tensor.ts'
import { type TensorSource, writeTensorFile } from './tensor-file.ts'

// Counts up whenever the bytes would come out otherwise.
const FORMAT_VERSION = 3

/** Outputs from which a projection is multiplied by itself: joining it to others would cost more copying than it gains. */
const WIDE = 1024

/** Projections that read the same input, and the mean of x_j² / |x|² over some tokens for each of its channels [in]. */
export interface CalibratedBlock {
  /** Module paths: `model.layers.0.self_attn.q_proj`. */
  readonly members: readonly string[]
  readonly shares: Float32Array
}

const PARTS = ['forward', 'forward_scale', 'backward', 'backward_scale'] as const

type Parts = Readonly<Record<(typeof PARTS)[number], MappedTensor>>

/** Some members of a block whose results lie side by side in one product. */
export interface MappedInt8Piece extends Parts {
  readonly members: readonly string[]
}

/** What reads one input: quantised once, multiplied piece by piece. */
export interface MappedInt8Block {
  readonly smoothing: MappedTensor
  readonly pieces: readonly MappedInt8Piece[]
}

/** By `blockKey`. */
export type MappedInt8 = ReadonlyMap<string, MappedInt8Block>

/** The name of a block: its members' paths. */
export const blockKey = (members: readonly string[]): string => members.join('|')

/** Members that are multiplied together: all of a block, or each by itself where each is wide. */
function piecesOf(members: readonly string[], weights: MappedWeights): string[][] {
  const wide = members.every((path) => matrixOf(path, weights).dims[0]! >= WIDE)
  return wide ? members.map((path) => [path]) : [[...members]]
}

function matrixOf(path: string, weights: MappedWeights): MappedTensor {
  const tensor = weights.tensors.get(`${path}.weight`)
  if (!tensor) throw new Error(`${weights.id}: ${path}.weight is missing`)
  return tensor
}

/**
 * Maps the int8 copy in `cacheDir`, and makes it if it is not there: `calibrate` is asked for the blocks then.
 * One block at a time is in memory.
 */
export async function mapInt8(
  weights: MappedWeights,
  cacheDir: string,
  calibrate: () => Promise<readonly CalibratedBlock[]>,
): Promise<MappedInt8> {
  const folder = resolve(cacheDir)
  const file = join(folder, `${weights.id}.int8-${FORMAT_VERSION}.safetensors`)
  if (!existsSync(file)) {
    await mkdir(folder, { recursive: true })
    await writeTensorFile(
      file,
      (await calibrate()).flatMap((b) => sourcesOf(b, weights)),
    )
  }
  const tensors = await toMapped([...(await readSafetensorsHeader(file)).tensors.values()])
  const find = (name: string): MappedTensor => {
    const tensor = tensors.get(name)
    if (!tensor) throw new Error(`${basename(file)}: ${name} is missing; delete the file`)
    return tensor
  }
  const blocks = new Map<string, MappedInt8Block>()
  for (const name of tensors.keys()) {
    if (!name.endsWith(SMOOTHING)) continue
    const key = name.slice(0, -SMOOTHING.length)
    const pieces = piecesOf(key.split('|'), weights).map((members) => {
      const part = (part: keyof Parts) => find(`${blockKey(members)}.${part}`)
      return {
        members,
        forward: part('forward'),
        forward_scale: part('forward_scale'),
        backward: part('backward'),
        backward_scale: part('backward_scale'),
      }
    })
    blocks.set(key, { smoothing: find(name), pieces })
  }
  return blocks
}

const SMOOTHING = '.smoothing'

/** The block's tensors for the file; its matrices are read, and each piece quantised, when the first of it is written. */
function sourcesOf({ members, shares }: CalibratedBlock, weights: MappedWeights): TensorSource[] {
  const columns = shares.length
  const rowsOf = (paths: readonly string[]) =>
    paths.reduce((sum, path) => sum + matrixOf(path, weights).dims[0]!, 0)
  const read = async (paths: readonly string[]) => {
    const matrix = new Float32Array(rowsOf(paths) * columns)
    let at = 0
    for (const path of paths) {
      const tensor = matrixOf(path, weights)
      matrix.set(await readTensor({ ...tensor, dtype: 'F32' }), at)
      at += tensor.dims[0]! * columns
    }
    return matrix
  }
  let c: Float32Array<ArrayBuffer> | undefined
  const smoothing: TensorSource = {
    name: `${blockKey(members)}${SMOOTHING}`,
    dims: [columns],
    dtype: 'F32',
    async *chunks() {
      c = smoothingOf(await read(members), rowsOf(members), columns, shares)
      yield c.map((x) => 1 / x)
    },
  }
  const pieces = piecesOf(members, weights).flatMap((paths) => {
    const rows = rowsOf(paths)
    let quantised: Omit<QuantisedMatrix, 'smoothing'> | undefined
    const dims = {
      forward: [columns, rows],
      forward_scale: [rows],
      backward: [rows, columns],
      backward_scale: [columns],
    }
    return PARTS.map(
      (part, i): TensorSource => ({
        name: `${blockKey(paths)}.${part}`,
        dims: dims[part],
        dtype: part === 'forward' || part === 'backward' ? 'I8' : 'F32',
        async *chunks() {
          quantised ??= quantiseSmoothed(await read(paths), rows, columns, c!)
          yield quantised[part]
          if (i === PARTS.length - 1) quantised = undefined
        },
      }),
    )
  })
  return [smoothing, ...pieces]
}

export interface QuantisedMatrix {
  /** 1/c [in] */
  readonly smoothing: Float32Array<ArrayBuffer>
  /** W·c transposed, [in, out], in steps of `forward_scale` [out] */
  readonly forward: Int8Array<ArrayBuffer>
  readonly forward_scale: Float32Array<ArrayBuffer>
  /** W, [out, in], in steps of `backward_scale` [in] */
  readonly backward: Int8Array<ArrayBuffer>
  readonly backward_scale: Float32Array<ArrayBuffer>
}

/**
 * W [out, in] as int8, symmetric, one scale for each output of the product that it is for. The columns are scaled by
 * c first (`smoothingOf`), which its activations are divided by.
 */
export function quantise(
  matrix: Float32Array,
  out: number,
  inner: number,
  shares: Float32Array,
): QuantisedMatrix {
  const c = smoothingOf(matrix, out, inner, shares)
  return { smoothing: c.map((x) => 1 / x), ...quantiseSmoothed(matrix, out, inner, c) }
}

/**
 * What the columns of W [out, in] are multiplied by and its activations divided by, [in]. SmoothQuant (arXiv 2211.10438)
 * takes √max|x| / √max|w|, which the few tokens with outliers rule; with the root mean squares of x/|x| and of w, every
 * token counts alike and the product's median error is a third less (docs/facts.md).
 */
function smoothingOf(
  matrix: Float32Array,
  out: number,
  inner: number,
  shares: Float32Array,
): Float32Array<ArrayBuffer> {
  const squares = new Float64Array(inner)
  for (let o = 0; o < out; o++)
    for (let i = 0; i < inner; i++) squares[i]! += matrix[o * inner + i]! ** 2
  return Float32Array.from(shares, (share, i) =>
    share && squares[i] ? (share / squares[i]!) ** 0.25 : 1,
  )
}

function quantiseSmoothed(
  matrix: Float32Array,
  out: number,
  inner: number,
  c: Float32Array,
): Omit<QuantisedMatrix, 'smoothing'> {
  const largest = new Float32Array(inner)
  for (let o = 0; o < out; o++)
    for (let i = 0; i < inner; i++)
      largest[i] = Math.max(largest[i]!, Math.abs(matrix[o * inner + i]!))
  const forward = new Int8Array(out * inner)
  const forward_scale = new Float32Array(out)
  const backward = new Int8Array(out * inner)
  const backward_scale = largest.map((w) => w / 127 || 1)
  for (let o = 0; o < out; o++) {
    let most = 0
    for (let i = 0; i < inner; i++) most = Math.max(most, Math.abs(matrix[o * inner + i]! * c[i]!))
    const scale = Math.fround(most / 127) || 1
    forward_scale[o] = scale
    for (let i = 0; i < inner; i++) {
      const w = matrix[o * inner + i]!
      forward[i * out + o] = nearest((w * c[i]!) / scale)
      backward[o * inner + i] = nearest(w / backward_scale[i]!)
    }
  }
  return { forward, forward_scale, backward, backward_scale }
}

/** Math.round in a third to a fifth of its time, which was most of what a copy takes (docs/performance.md). */
export const nearest = (x: number): number => Math.floor(x + 0.5)
