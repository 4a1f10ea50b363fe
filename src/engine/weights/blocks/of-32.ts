// llama.cpp's blocks of 32 values with one scale. Nibbles: the low ones are the block's first half, the high ones its second.
// A product is rounded to float32 before a sum; a scale of 11 bits times a few makes it exact anyway.

import { halfReader } from './halves.ts'

/** f16 d, 32 × i8. */
export function readQ8_0(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 34, to += 32) {
    const d = half(at)
    for (let i = 0; i < 32; i++) out[to + i] = d * ((bytes[at + 2 + i]! << 24) >> 24)
  }
}

/** f16 d, 16 × two nibbles. */
export function readQ4_0(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 18, to += 32) {
    const d = half(at)
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 2 + i]!
      out[to + i] = d * ((q & 15) - 8)
      out[to + 16 + i] = d * ((q >> 4) - 8)
    }
  }
}

/** f16 d, f16 m, 16 × two nibbles. */
export function readQ4_1(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 20, to += 32) {
    const d = half(at)
    const m = half(at + 2)
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 4 + i]!
      out[to + i] = d * (q & 15) + m
      out[to + 16 + i] = d * (q >> 4) + m
    }
  }
}

/** f16 d, 32 fifth bits, 16 × two nibbles. */
export function readQ5_0(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 22, to += 32) {
    const d = half(at)
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 6 + i]!
      out[to + i] = d * (((q & 15) | fifth(bytes, at + 2, i)) - 16)
      out[to + 16 + i] = d * (((q >> 4) | fifth(bytes, at + 2, 16 + i)) - 16)
    }
  }
}

/** f16 d, f16 m, 32 fifth bits, 16 × two nibbles. */
export function readQ5_1(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 24, to += 32) {
    const d = half(at)
    const m = half(at + 2)
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 8 + i]!
      out[to + i] = d * ((q & 15) | fifth(bytes, at + 4, i)) + m
      out[to + 16 + i] = d * ((q >> 4) | fifth(bytes, at + 4, 16 + i)) + m
    }
  }
}

/** Bit i of the bits from `at` on, as 16 or 0. */
const fifth = (bytes: Uint8Array, at: number, i: number): number =>
  ((bytes[at + (i >> 3)]! >> (i & 7)) & 1) << 4
