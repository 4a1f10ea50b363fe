// One tensor of a merge: read from each model, merged, rounded, and written to its place.

import { type FileHandle, open } from 'node:fs/promises'
import { turn } from '../export/tensor-bytes.ts'
import { elements } from '../tensor.ts'
import { type Adapter, readAdapter } from '../weights/adapter.ts'
import { isFloatDtype } from '../weights/dequantise.ts'
import { foldAdapter } from '../weights/fold.ts'
import { isRearranged, readTensor, type StoredTensor } from '../weights/stored-tensor.ts'
import type { MergeDtype } from './config.ts'
import { drawing } from './draws.ts'
import type { MergeInput, MergeMethod } from './method.ts'
import { MERGE_METHODS } from './methods.ts'
import type { PlannedInput, PlannedTensor } from './plan.ts'
import { encode, round } from './rounding.ts'

export interface MergeTensorRequest {
  method: string
  seed: number
  tensor: PlannedTensor
  /** The shard that it lies in. */
  file: string
}

/** Elements that are merged at once where a method goes element by element. */
const PIECE = 2 ** 22

/** Merges one tensor and writes it. Throws what is wrong with it by its name. */
export async function mergeTensor({
  method,
  seed,
  tensor,
  file,
}: MergeTensorRequest): Promise<void> {
  const merging = MERGE_METHODS.get(method)
  if (!merging) throw new Error(`merge method ${method} is not known`)
  const handle = await open(file, 'r+')
  try {
    if (!isFloatDtype(tensor.dtype)) return await copy(tensor, handle)
    const total = elements(tensor.dims)
    const step = inPieces(tensor, merging) ? PIECE : Math.max(total, 1)
    for (let at = 0; at < total; at += step) {
      const count = Math.min(step, total - at)
      const merged = await mergePart({ merging, seed, tensor }, at, count)
      const bytes = encode(merged, tensor.dtype as 'F32' | 'F16' | 'BF16')
      await writeFully(handle, bytes, tensor.offset + at * (tensor.bytes / total))
    }
  } finally {
    await handle.close()
  }
}

const inPieces = (tensor: PlannedTensor, { elementwise }: MergeMethod) =>
  (elementwise || tensor.copied) &&
  tensor.inputs.every(
    ({ tensor, lora }) =>
      !lora && !isRearranged(tensor) && ['F32', 'F16', 'BF16'].includes(tensor.dtype),
  )

async function mergePart(
  { merging, seed, tensor }: { merging: MergeMethod; seed: number; tensor: PlannedTensor },
  at: number,
  count: number,
): Promise<Float32Array> {
  const inputs: MergeInput[] = []
  for (const input of tensor.inputs) {
    const data = await readInput(input, tensor, { at, count })
    inputs.push({ data, isBase: input.isBase, parameters: input.parameters })
  }
  if (tensor.copied) return inputs[0]!.data
  const { name, dims, parameters } = tensor
  const merged = merging.merge({
    name,
    dims,
    inputs,
    parameters,
    random: drawing(seed, name),
  })
  finite(merged, () => `tensor ${name}: the merge gives a number that is not finite`)
  return merged
}

/** A part of one model's tensor, with its adapter folded in. Throws where it holds what is no number. */
export async function readInput(
  { tensor, lora }: PlannedInput,
  { dims, round: dtype }: Pick<PlannedTensor, 'dims' | 'round'>,
  { at, count }: { at: number; count: number },
): Promise<Float32Array> {
  const total = elements(dims)
  const width = tensor.bytes / Math.max(total, 1)
  const part: StoredTensor =
    count === total
      ? tensor
      : { ...tensor, dims: [count], offset: tensor.offset + at * width, bytes: count * width }
  let data = await readTensor(part)
  if (lora) data = await withAdapter(data, { ...lora, dims })
  finite(data, () => `tensor ${tensor.name}: its weights hold NaN or infinity`)
  return dtype ? round(data, dtype as MergeDtype) : data
}

function finite(data: Float32Array, what: () => string): void {
  let sum = 0
  for (let i = 0; i < data.length; i++) sum += data[i]! * 0
  if (sum !== 0) throw new Error(what())
}

const adapters = new Map<string, Promise<Adapter>>()

/** The weights with the adapter folded into them. */
async function withAdapter(
  weights: Float32Array,
  { file, module, turned, dims }: NonNullable<PlannedInput['lora']> & { dims: readonly number[] },
): Promise<Float32Array> {
  const reading = adapters.get(file) ?? readAdapter(file)
  adapters.set(file, reading)
  const { pairs, config } = await reading
  const pair = pairs.get(module)!
  const [out, inner] = [pair.out_features, pair.in_features]
  if (out * inner !== weights.length)
    throw new Error(`${module}: the adapter is [${out}, ${inner}], the tensor [${dims}]`)
  if (!turned) {
    foldAdapter(weights, pair, config)
    return weights
  }
  const rows = turn(weights, inner, out)
  foldAdapter(rows, pair, config)
  return turn(rows, out, inner)
}

async function copy({ inputs, offset }: PlannedTensor, into: FileHandle): Promise<void> {
  const { tensor } = inputs[0]!
  const from = await open(tensor.file, 'r')
  try {
    const bytes = new Uint8Array(tensor.bytes)
    await from.read(bytes, 0, bytes.length, tensor.offset)
    await writeFully(into, bytes, offset)
  } finally {
    await from.close()
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number) {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}
