// llama.cpp's blocks of 256 values, in groups with small scales of their own.

import { halfReader } from './halves.ts'

/** f16 d, f16 dmin, 8 scales and 8 minima of 6 bits in 12 bytes, 128 × two nibbles. */
export function readQ4_K(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 144, to += 256)
    for (let group = 0; group < 8; group++) {
      const d = half(at) * scaleOf(bytes, at + 4, group)
      const m = half(at + 2) * minimumOf(bytes, at + 4, group)
      const nibbles = at + 16 + 32 * (group >> 1) // two groups share 32 bytes: low, then high nibbles
      const shift = 4 * (group & 1)
      for (let i = 0; i < 32; i++)
        out[to + 32 * group + i] = d * ((bytes[nibbles + i]! >> shift) & 15) - m
    }
}

/** As Q4_K, with 256 fifth bits before the nibbles. */
export function readQ5_K(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 176, to += 256)
    for (let group = 0; group < 8; group++) {
      const d = half(at) * scaleOf(bytes, at + 4, group)
      const m = half(at + 2) * minimumOf(bytes, at + 4, group)
      const nibbles = at + 48 + 32 * (group >> 1)
      const shift = 4 * (group & 1)
      for (let i = 0; i < 32; i++) {
        const low = (bytes[nibbles + i]! >> shift) & 15
        const high = (bytes[at + 16 + i]! >> group) & 1
        out[to + 32 * group + i] = d * (low | (high << 4)) - m
      }
    }
}

/** 256 low nibbles, 256 × two high bits, 16 scales of i8, f16 d. */
export function readQ6_K(bytes: Uint8Array, out: Float32Array): void {
  const half = halfReader(bytes)
  for (let at = 0, to = 0; to < out.length; at += 210, to += 256)
    for (let group = 0; group < 8; group++) {
      // Four groups share 64 bytes of nibbles (low of 32, low of 32, high, high) and 32 bytes of high bits.
      const nibbles = at + 64 * (group >> 2) + 32 * (group & 1)
      const shift = 4 * ((group >> 1) & 1)
      const bits = at + 128 + 32 * (group >> 2)
      for (let i = 0; i < 32; i++) {
        const scale = (bytes[at + 192 + 2 * group + (i >> 4)]! << 24) >> 24
        const low = (bytes[nibbles + i]! >> shift) & 15
        const high = (bytes[bits + i]! >> (2 * (group & 3))) & 3
        out[to + 32 * group + i] = half(at + 208) * scale * ((low | (high << 4)) - 32)
      }
    }
}

// The twelve bytes are A…D of 6 bits with two bits of E…H above them, the minima alike, then the rest of both E…H.
const scaleOf = (bytes: Uint8Array, at: number, i: number): number =>
  i < 4 ? bytes[at + i]! & 63 : (bytes[at + 4 + i]! & 15) | ((bytes[at + i - 4]! >> 2) & 48)

const minimumOf = (bytes: Uint8Array, at: number, i: number): number =>
  i < 4 ? bytes[at + 4 + i]! & 63 : (bytes[at + 4 + i]! >> 4) | ((bytes[at + i]! >> 2) & 48)
