// Stored bytes → float32, bit for bit as llama.cpp's reference and Python's `gguf` do it.
// Knows block layouts only; no file, no names.

import { readBfloats, readHalves } from './blocks/halves.ts'
import { readQ4_0, readQ4_1, readQ5_0, readQ5_1, readQ8_0 } from './blocks/of-32.ts'
import { readQ4_K, readQ5_K, readQ6_K } from './blocks/of-256.ts'

interface Block {
  /** How many values one block holds, and in how many bytes. */
  readonly values: number
  readonly bytes: number
  /** Reads whole blocks. */
  readonly read: (bytes: Uint8Array, out: Float32Array) => void
}

const blocks = {
  F32: { values: 1, bytes: 4, read: readFloats },
  F16: { values: 1, bytes: 2, read: readHalves },
  BF16: { values: 1, bytes: 2, read: readBfloats },
  Q8_0: { values: 32, bytes: 34, read: readQ8_0 },
  Q4_0: { values: 32, bytes: 18, read: readQ4_0 },
  Q4_1: { values: 32, bytes: 20, read: readQ4_1 },
  Q5_0: { values: 32, bytes: 22, read: readQ5_0 },
  Q5_1: { values: 32, bytes: 24, read: readQ5_1 },
  Q4_K: { values: 256, bytes: 144, read: readQ4_K },
  Q5_K: { values: 256, bytes: 176, read: readQ5_K },
  Q6_K: { values: 256, bytes: 210, read: readQ6_K },
} satisfies Record<string, Block>

/** Dtypes whose values can be read as float32. */
export type FloatDtype = keyof typeof blocks

export const FLOAT_BLOCKS: Readonly<Record<FloatDtype, Block>> = blocks

export const isFloatDtype = (dtype: string): dtype is FloatDtype =>
  Object.hasOwn(FLOAT_BLOCKS, dtype)

/** Reads whole blocks of `bytes` into `out` from its start. */
export function dequantise(dtype: FloatDtype, bytes: Uint8Array, out: Float32Array): void {
  const block = FLOAT_BLOCKS[dtype]
  const count = bytes.length / block.bytes
  if (!Number.isInteger(count) || count * block.values !== out.length)
    throw new Error(`${dtype}: ${bytes.length} bytes do not hold ${out.length} values`)
  block.read(bytes, out)
}

function readFloats(bytes: Uint8Array, out: Float32Array): void {
  new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes)
}
