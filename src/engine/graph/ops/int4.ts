// Products with frozen weights in blocks of four bits, by com.microsoft.MatMulNBits: no gradient, for serving alone.

import { constant, emitOne, staticDims, type Value } from '../graph.ts'
import { add } from './elementwise.ts'
import { gemm, matmul } from './products.ts'

const BLOCK = 32

/** W [out, in] = scale · (quants − zero) + offset; zero is 8 unless `zero` [out, …] holds others, packed alike. */
export interface Int4Weight {
  /** [out, in/32, 16] uint8 */
  readonly quants: Value
  /** [out, in/32] */
  readonly scale: Value
  /** [in/32, out] */
  readonly offset: Value
}

/** x [N, in] · Wᵀ → [N, out]. An offset is the same for a whole block, so it meets the block's sum of x alone. */
export function int4Linear(x: Value, w: Int4Weight): Value {
  return gemm(blockSums(x), w.offset, { c: nibbles(x, w.quants, w.scale) })
}

/** Eight bits as two matrices of four: W = 16 · scale · (high − 8) + scale · low. */
export interface Int8Halves {
  readonly high: Value
  readonly low: Value
  readonly high_scale: Value
  readonly low_scale: Value
}

/** x [N, in] · Wᵀ → [N, out]. */
export const halvesLinear = (x: Value, w: Int8Halves): Value =>
  add(nibbles(x, w.high, w.high_scale), nibbles(x, w.low, w.low_scale, 0))

/** Activations are rounded to int8 by blocks of 32 (accuracy level 4). */
function nibbles(x: Value, quants: Value, scale: Value, zero = 8): Value {
  const [out, count] = staticDims(quants.dims)
  const attributes = { K: count! * BLOCK, N: out!, bits: 4, block_size: BLOCK, accuracy_level: 4 }
  const zeros = new Uint8Array(out! * Math.ceil(count! / 2)).fill(zero | (zero << 4))
  const inputs =
    zero === 8
      ? [x, quants, scale]
      : [x, quants, scale, constant({ dtype: 'uint8', dims: [zeros.length], data: zeros })]
  const type = { dtype: 'float32' as const, dims: [x.dims[0]!, out!] }
  return emitOne('MatMulNBits', inputs, type, { domain: 'com.microsoft', attributes })
}

const sums = new WeakMap<Value, Value>()
const indicators = new Map<number, Value>()

/** [N, in] → [N, in/32]: a product with ones, which is one operator where a sum over a new axis is two. */
function blockSums(x: Value): Value {
  const known = sums.get(x)
  if (known) return known
  const inner = Number(x.dims[1])
  const count = inner / BLOCK
  const ones = new Float32Array(inner * count)
  for (let i = 0; i < inner; i++) ones[i * count + Math.floor(i / BLOCK)] = 1
  const indicator =
    indicators.get(inner) ?? constant({ dtype: 'float32', dims: [inner, count], data: ones })
  indicators.set(inner, indicator)
  const y = matmul(x, indicator)
  sums.set(x, y)
  return y
}
