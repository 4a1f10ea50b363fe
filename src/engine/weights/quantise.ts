// float32 → stored bytes, the way back of dequantise.ts. Knows block layouts only; no file, no names.

import { writeBfloats, writeHalves } from './blocks/halves.ts'
import { writeQ4_0, writeQ4_1, writeQ5_0, writeQ5_1, writeQ8_0 } from './blocks/quantise-32.ts'
import { writeQ4_K, writeQ5_K } from './blocks/quantise-256.ts'
import { FLOAT_BLOCKS } from './dequantise.ts'

const writers = {
  F32: (values: Float32Array, out: Uint8Array) =>
    out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
  F16: writeHalves,
  BF16: writeBfloats,
  Q8_0: writeQ8_0,
  Q4_0: writeQ4_0,
  Q4_1: writeQ4_1,
  Q5_0: writeQ5_0,
  Q5_1: writeQ5_1,
  Q4_K: writeQ4_K,
  Q5_K: writeQ5_K,
}

/** Dtypes that can be written. */
export type WrittenDtype = keyof typeof writers

/** How many bytes so many values take. */
export function bytesOf(dtype: WrittenDtype, values: number): number {
  const block = FLOAT_BLOCKS[dtype]
  return (values / block.values) * block.bytes
}

/** The values as whole blocks; throws where they do not fill the last one. */
export function quantise(dtype: WrittenDtype, values: Float32Array): Uint8Array {
  const bytes = bytesOf(dtype, values.length)
  if (!Number.isInteger(bytes)) throw new Error(`${dtype}: ${values.length} values fill no blocks`)
  const out = new Uint8Array(bytes)
  writers[dtype](values, out)
  return out
}
