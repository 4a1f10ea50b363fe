// Stored bytes → float32, bit for bit as llama.cpp's reference and Python's `gguf` do it.
// Knows block layouts only; no file, no names.

/** Dtypes whose values can be read as float32. */
export type FloatDtype = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q4_1'

/** How many values one block holds, and in how many bytes. */
export const FLOAT_BLOCKS: Readonly<Record<FloatDtype, { values: number; bytes: number }>> = {
  F32: { values: 1, bytes: 4 },
  F16: { values: 1, bytes: 2 },
  BF16: { values: 1, bytes: 2 },
  Q8_0: { values: 32, bytes: 34 }, // f16 d, 32 × i8
  Q4_0: { values: 32, bytes: 18 }, // f16 d, 16 × two nibbles
  Q4_1: { values: 32, bytes: 20 }, // f16 d, f16 m, 16 × two nibbles
}

export const isFloatDtype = (dtype: string): dtype is FloatDtype =>
  Object.hasOwn(FLOAT_BLOCKS, dtype)

/** Reads whole blocks of `bytes` into `out` from its start. */
export function dequantise(dtype: FloatDtype, bytes: Uint8Array, out: Float32Array): void {
  const block = FLOAT_BLOCKS[dtype]
  const blocks = bytes.length / block.bytes
  if (!Number.isInteger(blocks) || blocks * block.values !== out.length)
    throw new Error(`${dtype}: ${bytes.length} bytes do not hold ${out.length} values`)
  switch (dtype) {
    case 'F32':
      new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes)
      break
    case 'F16':
      readHalves(bytes, out, halfTable())
      break
    case 'BF16':
      readBfloats(bytes, out)
      break
    case 'Q8_0':
      readQ8_0(bytes, blocks, out)
      break
    case 'Q4_0':
      readQ4_0(bytes, blocks, out)
      break
    case 'Q4_1':
      readQ4_1(bytes, blocks, out)
      break
    default:
      dtype satisfies never
  }
}

/** The value of a float16's raw bits. */
export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

let halves: Float32Array | undefined

function halfTable(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits))
  return halves
}

function readHalves(bytes: Uint8Array, out: Float32Array, table: Float32Array) {
  for (let i = 0; i < out.length; i++) out[i] = table[bytes[2 * i]! | (bytes[2 * i + 1]! << 8)]!
}

function readBfloats(bytes: Uint8Array, out: Float32Array) {
  // A bfloat16 is the upper half of a float32: written as bits, so that a NaN keeps its payload.
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < bits.length; i++) bits[i] = (bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24)
}

function readQ8_0(bytes: Uint8Array, blocks: number, out: Float32Array) {
  const table = halfTable()
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 34, to += 32) {
    const d = table[bytes[at]! | (bytes[at + 1]! << 8)]!
    for (let i = 0; i < 32; i++) out[to + i] = d * ((bytes[at + 2 + i]! << 24) >> 24)
  }
}

// The low nibbles are the block's first half, the high nibbles its second.
function readQ4_0(bytes: Uint8Array, blocks: number, out: Float32Array) {
  const table = halfTable()
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 18, to += 32) {
    const d = table[bytes[at]! | (bytes[at + 1]! << 8)]!
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 2 + i]!
      out[to + i] = d * ((q & 15) - 8)
      out[to + 16 + i] = d * ((q >> 4) - 8)
    }
  }
}

function readQ4_1(bytes: Uint8Array, blocks: number, out: Float32Array) {
  const table = halfTable()
  for (let b = 0, at = 0, to = 0; b < blocks; b++, at += 20, to += 32) {
    const d = table[bytes[at]! | (bytes[at + 1]! << 8)]!
    const m = table[bytes[at + 2]! | (bytes[at + 3]! << 8)]!
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 4 + i]!
      // The product is rounded to float32 before the sum: d has 11 bits and q 4, so it is exact anyway.
      out[to + i] = d * (q & 15) + m
      out[to + 16 + i] = d * (q >> 4) + m
    }
  }
}
