// float32 → llama.cpp's blocks of 32 values with one scale, byte for byte as Python's `gguf` rounds them.

import { floatToHalf } from './halves.ts'

const f = Math.fround

export function writeQ8_0(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 34, from += 32) {
    let most = 0
    for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(values[from + i]!))
    const d = f(most / 127)
    const inverse = d === 0 ? 0 : f(1 / d)
    putHalf(out, at, d)
    for (let i = 0; i < 32; i++) out[at + 2 + i] = roundAway(f(values[from + i]! * inverse))
  }
}

/** The value of largest size becomes −8: the scale takes its sign. */
export function writeQ4_0(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 18, from += 32) {
    let largest = values[from]!
    for (let i = 1; i < 32; i++)
      if (Math.abs(values[from + i]!) > Math.abs(largest)) largest = values[from + i]!
    const d = f(largest / -8)
    const inverse = d === 0 ? 0 : f(1 / d)
    putHalf(out, at, d)
    const quantised = (i: number) => clamp15(f(values[from + i]! * inverse + 8.5))
    for (let i = 0; i < 16; i++) out[at + 2 + i] = quantised(i) | (quantised(16 + i) << 4)
  }
}

export function writeQ4_1(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 20, from += 32) {
    let least = values[from]!
    let most = least
    for (let i = 1; i < 32; i++) {
      least = Math.min(least, values[from + i]!)
      most = Math.max(most, values[from + i]!)
    }
    const d = f(f(most - least) / 15)
    const inverse = d === 0 ? 0 : f(1 / d)
    putHalf(out, at, d)
    putHalf(out, at + 2, least)
    const quantised = (i: number) => clamp15(f(f(f(values[from + i]! - least) * inverse) + 0.5))
    for (let i = 0; i < 16; i++) out[at + 4 + i] = quantised(i) | (quantised(16 + i) << 4)
  }
}

/** As Q4_0, with −16; the fifth bits lie together, before the lower four. */
export function writeQ5_0(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 22, from += 32) {
    let largest = values[from]!
    for (let i = 1; i < 32; i++)
      if (Math.abs(values[from + i]!) > Math.abs(largest)) largest = values[from + i]!
    const d = f(largest / -16)
    const inverse = d === 0 ? 0 : f(1 / d)
    putHalf(out, at, d)
    putFive(out, at + 2, (i) => f(f(values[from + i]! * inverse) + 16.5))
  }
}

/** As Q4_1, in 31 steps. */
export function writeQ5_1(values: Float32Array, out: Uint8Array): void {
  for (let at = 0, from = 0; from < values.length; at += 24, from += 32) {
    let least = values[from]!
    let most = least
    for (let i = 1; i < 32; i++) {
      least = Math.min(least, values[from + i]!)
      most = Math.max(most, values[from + i]!)
    }
    const d = f(f(most - least) / 31)
    const inverse = d === 0 ? 0 : f(1 / d)
    putHalf(out, at, d)
    putHalf(out, at + 2, least)
    putFive(out, at + 4, (i) => f(f(f(values[from + i]! - least) * inverse) + 0.5))
  }
}

/** 32 levels of five bits. */
function putFive(out: Uint8Array, at: number, levelOf: (i: number) => number): void {
  out.fill(0, at, at + 20)
  for (let i = 0; i < 32; i++) {
    const level = Math.min(31, Math.max(0, Math.trunc(levelOf(i))))
    out[at + (i >> 3)]! |= (level >> 4) << (i & 7)
    out[at + 4 + (i & 15)]! |= (level & 15) << (i < 16 ? 0 : 4)
  }
}

/** Writes a float16 at a byte offset. */
export function putHalf(out: Uint8Array, at: number, value: number): void {
  const half = floatToHalf(value)
  out[at] = half & 255
  out[at + 1] = half >> 8
}

const roundAway = (x: number) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5)
const clamp15 = (x: number) => Math.min(15, Math.max(0, Math.trunc(x)))
