// Rotary position embedding (arXiv 2104.09864), in the half-split form of Hugging Face's llama.

import { float32, int64 } from '../../tensor.ts'
import { constant, emitOne, type Value, withGradient } from '../graph.ts'
import { mul, neg, scale, toFloat } from './elementwise.ts'
import { reshape } from './shape.ts'

/** cos and sin of every position's angles, [P, K/2] each, and −sin, which turns back. */
export interface RotaryTable {
  readonly cos: Value
  readonly sin: Value
  readonly minusSin: Value
}

/** Angles position · frequency for P positions and the K/2 frequencies of a head. */
export function rotaryTable(positions: number, frequencies: Float32Array): RotaryTable {
  const half = frequencies.length
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(p * frequencies[i]!) // as Hugging Face does it, in float32
      cos[p * half + i] = Math.cos(angle)
      sin[p * half + i] = Math.sin(angle)
    }
  const sinValue = constant(float32([positions, half], sin))
  return { cos: constant(float32([positions, half], cos)), sin: sinValue, minusSin: neg(sinValue) }
}

/**
 * The table of the positions [B, S] (int64) of one run alone, made in the graph, and each token's row in it [B, S]:
 * a table of every position that a long context has takes tens of megabytes and a second. Where `heads` are given each
 * token's heads are sequences of one token, and so are the rows, [B·S·heads, 1]. What is turned is scaled by `scale`.
 */
export function rotaryRows(
  positions: Value,
  frequencies: Float32Array,
  { heads, scale: factor = 1 }: { heads?: number; scale?: number } = {},
): { table: RotaryTable; rows: Value } {
  const half = frequencies.length
  const column = reshape(toFloat(positions), ['N', 1])
  const angles = mul(column, constant(float32([1, half], frequencies))) // [N, K/2]
  const sin = scale(emitOne('Sin', [angles], angles), factor)
  const none = constant(int64([], [0]))
  const one = constant(int64([], [1]))
  const count = emitOne('Size', [positions], { dtype: 'int64', dims: [] })
  const table = { cos: scale(emitOne('Cos', [angles], angles), factor), sin, minusSin: neg(sin) }
  if (heads !== undefined) {
    const each = constant(int64([], [heads]))
    const type = { dtype: 'int64' as const, dims: [] }
    const end = emitOne('Mul', [count, each], type)
    const all = emitOne('Range', [none, end, one], { dtype: 'int64', dims: ['N·heads'] })
    const rows = emitOne('Div', [all, each], { dtype: 'int64', dims: ['N·heads'] })
    return { table, rows: reshape(rows, ['N·heads', 1]) }
  }
  const range = emitOne('Range', [none, count, one], { dtype: 'int64', dims: ['N'] })
  const shape = emitOne('Shape', [positions], { dtype: 'int64', dims: [2] })
  return { table, rows: emitOne('Reshape', [range, shape], positions) }
}

/**
 * Rotates each head of x [B, T, H·K] by its position [B, T] (int64).
 * A rotation's gradient is the rotation by the negative angle.
 */
export function rotary(x: Value, positions: Value, table: RotaryTable): Value {
  const y = emitOne('RotaryEmbedding', [x, positions, table.cos, table.sin], x, {
    domain: 'com.microsoft',
  })
  return withGradient('RotaryEmbedding', y, [x], (dy) => [
    rotary(dy, positions, { cos: table.cos, sin: table.minusSin, minusSin: table.sin }),
  ])
}
