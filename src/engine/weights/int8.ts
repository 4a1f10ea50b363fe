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
const FORMAT_VERSION = 2

/** Projections that read the same input, and the mean of x_j² / |x|² over some tokens for each of its channels [in]. */
export interface CalibratedBlock {
  /** Module paths: `model.layers.0.self_attn.q_proj`. */
  readonly members: readonly string[]
  readonly shares: Float32Array
}

const PARTS = [
  'smoothing',
  'forward',
  'forward_scale',
  'backward',
  'backward_scale',
] as const satisfies readonly (keyof QuantisedMatrix)[]

/** The tensors of one block, as `op.int8Linear` wants them. */
export type MappedInt8Block = Readonly<Record<(typeof PARTS)[number], MappedTensor>>

/** By `blockKey`. */
export type MappedInt8 = ReadonlyMap<string, MappedInt8Block>

/** The name of a block: its members' paths. */
export const blockKey = (members: readonly string[]): string => members.join('|')

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
  const blocks = new Map<string, MappedInt8Block>()
  for (const name of tensors.keys()) {
    const key = name.slice(0, name.lastIndexOf('.'))
    if (blocks.has(key)) continue
    const part = (part: string) => {
      const tensor = tensors.get(`${key}.${part}`)
      if (!tensor) throw new Error(`${basename(file)}: ${key}.${part} is missing; delete the file`)
      return tensor
    }
    blocks.set(key, {
      smoothing: part('smoothing'),
      forward: part('forward'),
      forward_scale: part('forward_scale'),
      backward: part('backward'),
      backward_scale: part('backward_scale'),
    })
  }
  return blocks
}

/** The block's tensors for the file; the matrix is read and quantised when the first of them is written. */
function sourcesOf({ members, shares }: CalibratedBlock, weights: MappedWeights): TensorSource[] {
  const tensors = members.map((path) => {
    const tensor = weights.tensors.get(`${path}.weight`)
    if (!tensor) throw new Error(`${weights.id}: ${path}.weight is missing`)
    return tensor
  })
  const columns = shares.length
  const rows = tensors.reduce((sum, { dims }) => sum + dims[0]!, 0)
  let quantised: QuantisedMatrix | undefined
  const read = async () => {
    const matrix = new Float32Array(rows * columns)
    let at = 0
    for (const tensor of tensors) {
      matrix.set(await readTensor({ ...tensor, dtype: 'F32' }), at)
      at += tensor.dims[0]! * columns
    }
    return quantise(matrix, rows, columns, shares)
  }
  const dims = {
    smoothing: [columns],
    forward: [columns, rows],
    forward_scale: [rows],
    backward: [rows, columns],
    backward_scale: [columns],
  }
  return PARTS.map((part, i) => ({
    name: `${blockKey(members)}.${part}`,
    dims: dims[part],
    dtype: part === 'forward' || part === 'backward' ? 'I8' : 'F32',
    async *chunks() {
      quantised ??= await read()
      yield quantised[part]
      if (i === PARTS.length - 1) quantised = undefined
    },
  }))
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
 * c first, which its activations are divided by. SmoothQuant (arXiv 2211.10438) takes c = √max|x| / √max|w|, which the
 * few tokens with outliers rule; with the root mean squares of x/|x| and of w, every token counts alike and the
 * product's median error is a third less (docs/facts.md).
 */
export function quantise(
  matrix: Float32Array,
  out: number,
  inner: number,
  shares: Float32Array,
): QuantisedMatrix {
  const largest = new Float32Array(inner)
  const squares = new Float64Array(inner)
  for (let o = 0; o < out; o++)
    for (let i = 0; i < inner; i++) {
      const w = matrix[o * inner + i]!
      largest[i] = Math.max(largest[i]!, Math.abs(w))
      squares[i]! += w * w
    }
  const c = shares.map((share, i) => (share && squares[i] ? (share / squares[i]!) ** 0.25 : 1))

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
      forward[i * out + o] = Math.round((w * c[i]!) / scale)
      backward[o * inner + i] = Math.round(w / backward_scale[i]!)
    }
  }
  return { smoothing: c.map((x) => 1 / x), forward, forward_scale, backward, backward_scale }
}
