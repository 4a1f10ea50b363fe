// float32 → float16 and bfloat16, to the nearest, ties to even; as bytes of a file or as float32 again.

import { halfReader, readBfloats } from '../weights/blocks/halves.ts'
import type { MergeDtype } from './config.ts'

/** The bytes of a safetensors file. */
export function encode(values: Float32Array, dtype: 'F32' | 'F16' | 'BF16'): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  const out = new Uint16Array(values.length)
  writeBits(values, out, dtype)
  return new Uint8Array(out.buffer)
}

function writeBits(values: Float32Array, out: Uint16Array, dtype: 'F16' | 'BF16'): void {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  if (dtype === 'BF16') for (let i = 0; i < bits.length; i++) out[i] = bfloatBits(bits[i]!)
  else for (let i = 0; i < bits.length; i++) out[i] = halfBits(bits[i]!)
}

/** The same for pieces, one after the other; what it gives is only valid until the next. */
export function encoderOf(dtype: 'F32' | 'F16' | 'BF16'): (values: Float32Array) => Uint8Array {
  let kept = new Uint16Array(0)
  return (values) => {
    if (dtype === 'F32') return encode(values, dtype)
    if (kept.length < values.length) kept = new Uint16Array(values.length)
    const out = kept.subarray(0, values.length)
    writeBits(values, out, dtype)
    return new Uint8Array(out.buffer, 0, out.byteLength)
  }
}

/** The values that such a file would hold, in place. */
export function round(values: Float32Array, dtype: MergeDtype): Float32Array {
  if (dtype === 'float32') return values
  const bytes = encode(values, dtype === 'float16' ? 'F16' : 'BF16')
  if (dtype === 'bfloat16') readBfloats(bytes, values)
  else {
    const half = halfReader(bytes)
    for (let i = 0; i < values.length; i++) values[i] = half(2 * i)
  }
  return values
}

const bfloatBits = (bits: number): number => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16

function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  // From 65520 on everything rounds to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude < 0x38800000) {
    // Below 2^-14: steps of 2^-24, rounded by the addition that leaves no lower bits.
    const scratch = Float32Array.of(0)
    new Uint32Array(scratch.buffer)[0] = magnitude
    return sign | roundEven(scratch[0]! * 2 ** 24)
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1)
  return sign | ((rounded - 0x38000000) >>> 13)
}

function roundEven(x: number): number {
  const low = Math.floor(x)
  const rest = x - low
  if (rest > 0.5 || (rest === 0.5 && low % 2 === 1)) return low + 1
  return low
}
