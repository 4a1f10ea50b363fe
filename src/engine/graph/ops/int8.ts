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
export interface Int8Matrix {
  /** [in, out] int8 and its scales [out] */
  readonly forward: Value
  readonly forward_scale: Value
  /** [out, in] int8 and its scales [in] */
  readonly backward: Value
  readonly backward_scale: Value
}

/**
 * x [N, in] · Wᵀ for frozen W [out, in], each → [N, out]; the gradient is dx = dy·W, in int8 too. x is quantised once for
 * all. It is multiplied by `smoothing` [in] before, which each `forward` was divided by, as in SmoothQuant (arXiv
 * 2211.10438): outliers of the activations are moved into the weights.
 */
export function int8Linears(x: Value, smoothing: Value, matrices: readonly Int8Matrix[]): Value[] {
  const quantised = quantise(mul(x, smoothing))
  return matrices.map((w) => {
    const y = product(quantised, w.forward, w.forward_scale)
    return withGradient('Int8Linear', y, [x], (dy) => [
      product(quantise(dy), w.backward, w.backward_scale),
    ])
  })
}

interface Quantised {
  /** [N, K] uint8 around 128 */
  readonly steps: Value
  /** What a step of each row is worth, [N, 1]. */
  readonly scale: Value
}

/** x [N, K] as uint8, one scale a row. */
function quantise(x: Value): Quantised {
  const n = x.dims[0]!
  // max|x| / 127 without a pass that writes |x|.
  const extreme = (op: 'ReduceMax' | 'ReduceMin') =>
    emitOne(op, [x, ints(1)], { dtype: 'float32', dims: [n, 1] }, { attributes: { keepdims: 1 } })
  const steps = (op: 'ReduceMax' | 'ReduceMin', sign: number) =>
    mul(extreme(op), scalar(sign / 127))
  const above = steps('ReduceMax', 1)
  const scale = emitOne('Max', [above, steps('ReduceMin', -1), scalar(1e-20)], above)
  const row: Dims = [n]
  const flat = emitOne('Reshape', [scale, ints(-1)], { dtype: 'float32', dims: row })
  const type = { dtype: 'uint8', dims: x.dims } as const
  const attributes = { axis: 0 }
  return { steps: emitOne('QuantizeLinear', [x, flat, middles(flat)], type, { attributes }), scale }
}

/** x [N, K] · w [K, M] */
const product = ({ steps, scale }: Quantised, w: Value, wScale: Value): Value =>
  mul(stepsProduct(steps, MIDDLE, w, wScale), scale)

/** (steps − zero)·w · wScale, for steps [N, K] uint8 around `zero`, w [K, M] int8 and wScale [M]. No gradient. */
export const stepsProduct = (steps: Value, zero: Value, w: Value, wScale: Value): Value =>
  emitOne(
    'MatMulIntegerToFloat',
    [steps, w, scalar(1), wScale, zero],
    { dtype: 'float32', dims: [steps.dims[0]!, w.dims[1]!] },
    { domain: 'com.microsoft' },
  )

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
