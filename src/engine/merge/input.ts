// One model's tensor in a merge: read in pieces, its adapter folded in, rounded, held against NaN.

import { closeSync, openSync, readSync } from 'node:fs'
import { turn } from '../export/tensor-bytes.ts'
import { elements } from '../tensor.ts'
import { type Adapter, readAdapter } from '../weights/adapter.ts'
import { dequantise, FLOAT_BLOCKS, isFloatDtype } from '../weights/dequantise.ts'
import { foldAdapter } from '../weights/fold.ts'
import { isRearranged, readTensor, type StoredTensor } from '../weights/stored-tensor.ts'
import type { MergeDtype } from './config.ts'
import type { PlannedInput, PlannedTensor } from './plan.ts'
import { round } from './rounding.ts'

export interface OpenInput {
  /** Fills `out` with the values from `at` on, a multiple of the tensor's rows. */
  read(at: number, out: Float32Array): void
  close(): void
}

/** What needs no rounding. */
const SAME: Readonly<Record<MergeDtype, string>> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
}

type Shape = Pick<PlannedTensor, 'dims' | 'round'>

/** Opens one; what lies in another order than it is read in, or has an adapter over it, is held whole. */
export async function openInput(input: PlannedInput, shape: Shape): Promise<OpenInput> {
  const { tensor, lora } = input
  if (!lora && !isRearranged(tensor)) return fromFile(tensor, shape)
  const values = await readInput(input, shape)
  return {
    read: (at, out) => out.set(values.subarray(at, at + out.length)),
    close() {},
  }
}

/** A whole tensor. Throws where one of its values is no number. */
export async function readInput(
  { tensor, lora }: PlannedInput,
  { dims, round: dtype }: Shape,
): Promise<Float32Array> {
  let data = await readTensor(tensor)
  if (lora) data = await withAdapter(data, { ...lora, dims })
  refuseNoNumbers(tensor, data)
  return dtype ? round(data, dtype) : data
}

function fromFile(tensor: StoredTensor, { round: dtype }: Shape): OpenInput {
  if (!isFloatDtype(tensor.dtype))
    throw new Error(`tensor ${tensor.name}: ${tensor.dtype} cannot be read as float32`)
  const kind = tensor.dtype
  const { bytes, values } = FLOAT_BLOCKS[kind]
  const fd = openSync(tensor.file, 'r')
  let raw = new Uint8Array(0)
  return {
    read(at, out) {
      const length = (out.length / values) * bytes
      if (raw.length < length) raw = new Uint8Array(length)
      const piece = raw.subarray(0, length)
      readFully(fd, piece, tensor.offset + (at / values) * bytes, tensor)
      dequantise(kind, piece, out)
      if (dtype && SAME[dtype] !== kind) round(out, dtype)
    },
    close: () => closeSync(fd),
  }
}

function readFully(fd: number, into: Uint8Array, position: number, { name }: StoredTensor): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, position + done)
    if (count === 0) throw new Error(`tensor ${name}: the file ends inside the tensor`)
    done += count
  }
}

/** Throws where a tensor's weights hold NaN or infinity. */
export function refuseNoNumbers({ name }: Pick<StoredTensor, 'name'>, data: Float32Array): void {
  if (!areNumbers(data)) throw new Error(`tensor ${name}: its weights hold NaN or infinity`)
}

/** Whether every one is a number. */
export function areNumbers(values: Float32Array): boolean {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  // An exponent of ones carries over into the sign's place.
  let carried = 0
  for (let i = 0; i < bits.length; i++) carried |= (bits[i]! & 0x7f800000) + 0x00800000
  return carried >= 0
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
  if (out * inner !== elements(dims))
    throw new Error(`${module}: the adapter is [${out}, ${inner}], the tensor [${dims}]`)
  if (!turned) {
    foldAdapter(weights, pair, config)
    return weights
  }
  const rows = turn(weights, inner, out)
  foldAdapter(rows, pair, config)
  return turn(rows, out, inner)
}
