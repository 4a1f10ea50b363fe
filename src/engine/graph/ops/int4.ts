// Products with frozen weights in blocks of four bits, by com.microsoft.MatMulNBits: no gradient, for serving alone.

import { emitOne, ints, staticDims, type Value } from '../graph.ts'
import { reshape } from './shape.ts'

const BLOCK = 32

/** A matrix [out, n·32] = scale · (quants − zeros). */
export interface Int4Weight {
  /** [out, n, 16] uint8 */
  readonly quants: Value
  /** [out, n] */
  readonly scale: Value
  /** [out, ⌈n/2⌉] uint8, packed like the quants. */
  readonly zeros: Value
}

/**
 * x [N, in] · Wᵀ → [N, out]. Behind W the matrix has what is left of the blocks' offsets: it is the same for a whole block,
 * so it meets the block's sum of x alone.
 */
export function int4Linear(x: Value, w: Int4Weight): Value {
  const count = Number(x.dims[1]) / BLOCK
  const apart = reshape(x, ['N', count, BLOCK])
  const type = { dtype: 'float32' as const, dims: ['N', count] }
  const sums = emitOne('ReduceSum', [apart, ints(2)], type, { attributes: { keepdims: 0 } })
  return nibbles(beside(x, sums), w)
}

/** x [N, in] · Wᵀ → [N, out] for W of eight bits as two matrices of four side by side. */
export const halvesLinear = (x: Value, w: Int4Weight): Value => nibbles(beside(x, x), w)

function beside(a: Value, b: Value): Value {
  const dims = [a.dims[0]!, Number(a.dims[1]) + Number(b.dims[1])]
  return emitOne('Concat', [a, b], { dtype: 'float32', dims }, { attributes: { axis: 1 } })
}

/** Activations are rounded to int8 by blocks of 32 (accuracy level 4). */
function nibbles(x: Value, { quants, scale, zeros }: Int4Weight): Value {
  const [N, K] = [staticDims(quants.dims)[0]!, Number(x.dims[1])]
  const attributes = { K, N, bits: 4, block_size: BLOCK, accuracy_level: 4 }
  const type = { dtype: 'float32' as const, dims: [x.dims[0]!, N] }
  const inputs = [x, quants, scale, zeros]
  return emitOne('MatMulNBits', inputs, type, { domain: 'com.microsoft', attributes })
}
