// Products with frozen int8 weights: the activations are quantised anew in each run, token by token.

import {
  constant,
  type Dims,
  emitOne,
  ints,
  scalar,
  size,
  type Value,
  withGradient,
} from '../graph.ts'
import { mul } from './elementwise.ts'

/** One frozen matrix, kept twice: each copy has its scales along the axis that its product keeps. */
export interface Int8Weight {
  /** x is multiplied by it before it is quantised, [in]; `forward` was divided by it. */
  readonly smoothing: Value
  /** [in, out] int8 and its scales [out] */
  readonly forward: Value
  readonly forward_scale: Value
  /** [out, in] int8 and its scales [in] */
  readonly backward: Value
  readonly backward_scale: Value
}

/**
 * x [N, in] · Wᵀ for a frozen W [out, in] → [N, out]; the gradient is dx = dy·W, in int8 too.
 * Smoothing as in SmoothQuant (arXiv 2211.10438): outliers of the activations are moved into the weights.
 */
export function int8Linear(x: Value, w: Int8Weight): Value {
  const y = product(mul(x, w.smoothing), w.forward, w.forward_scale)
  return withGradient('Int8Linear', y, [x], (dy) => [product(dy, w.backward, w.backward_scale)])
}

/** x [N, K] · w [K, M] with x as uint8 around 128, one scale a row. */
function product(x: Value, w: Value, scale: Value): Value {
  const [n, m] = [x.dims[0]!, w.dims[1]!]
  // max|x| / 127 without a pass that writes |x|.
  const extreme = (op: 'ReduceMax' | 'ReduceMin') =>
    emitOne(op, [x, ints(1)], { dtype: 'float32', dims: [n, 1] }, { attributes: { keepdims: 1 } })
  const steps = (op: 'ReduceMax' | 'ReduceMin', sign: number) =>
    mul(extreme(op), scalar(sign / 127))
  const above = steps('ReduceMax', 1)
  const rowScale = emitOne('Max', [above, steps('ReduceMin', -1), scalar(1e-20)], above)
  const row: Dims = [n]
  const flat = emitOne('Reshape', [rowScale, ints(-1)], { dtype: 'float32', dims: row })
  const quantised = emitOne(
    'QuantizeLinear',
    [x, flat, middles(flat)],
    { dtype: 'uint8', dims: x.dims },
    { attributes: { axis: 0 } },
  )
  const y = emitOne(
    'MatMulIntegerToFloat',
    [quantised, w, scalar(1), scale, MIDDLE],
    { dtype: 'float32', dims: [n, m] },
    { domain: 'com.microsoft' },
  )
  return emitOne('Mul', [y, rowScale], y)
}

const MIDDLE = constant({ dtype: 'uint8', dims: [], data: Uint8Array.of(128) })

/** 128 for each row: QuantizeLinear wants as many zero points as scales. */
function middles(scales: Value): Value {
  if (scales.dims.every((d) => typeof d === 'number')) {
    const count = size(scales.dims)
    return constant({ dtype: 'uint8', dims: [count], data: new Uint8Array(count).fill(128) })
  }
  const shape = emitOne('Shape', [scales], { dtype: 'int64', dims: [1] })
  return emitOne('Expand', [MIDDLE, shape], { dtype: 'uint8', dims: scales.dims })
}
