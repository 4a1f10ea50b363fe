// An exported tensor as stored bytes, piece by piece.

import { FLOAT_BLOCKS } from '../weights/dequantise.ts'
import type { WrittenDtype } from '../weights/quantise.ts'
import { quantise } from '../weights/quantise.ts'

const PIECE = 2 ** 20

/** Whole blocks of about a million values at a time. */
export function* pieces(dtype: WrittenDtype, values: Float32Array): Generator<Uint8Array> {
  const step = PIECE - (PIECE % FLOAT_BLOCKS[dtype].values)
  for (let at = 0; at < values.length; at += step)
    yield quantise(dtype, values.subarray(at, at + step))
}

/** [rows, columns] → [columns, rows]. */
export function turn(values: Float32Array, rows: number, columns: number): Float32Array {
  const turned = new Float32Array(values.length)
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) turned[c * rows + r] = values[r * columns + c]!
  return turned
}

/** Puts the halves of each head's rows in turns, as llama.cpp keeps q and k of a llama. */
export function weaveHeads(values: Float32Array, height: number, heads: number): Float32Array {
  const width = values.length / height
  const K = height / heads
  const out = new Float32Array(values.length)
  for (let head = 0; head < heads; head++)
    for (let i = 0; i < K / 2; i++)
      for (let j = 0; j < 2; j++) {
        const from = (head * K + j * (K / 2) + i) * width
        out.set(values.subarray(from, from + width), (head * K + 2 * i + j) * width)
      }
  return out
}
