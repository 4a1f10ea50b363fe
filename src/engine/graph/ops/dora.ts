// Weight-decomposed adaptation (DoRA, arXiv 2402.09353): each output's length is a parameter of its own.

import { emitOne, ints, type Value, withGradient } from '../graph.ts'
import { add, div, mul, scale } from './elementwise.ts'
import { gemm, linear } from './products.ts'

/**
 * The length of each row of W + s·B·A, W [out, in], A [r, in], B [out, r] → [1, out]. No gradient goes through it
 * (section 4.3 of the paper). ‖wₒ + s·bₒA‖² = ‖wₒ‖² + 2s·bₒ·(W·Aᵀ)ₒ + s²·bₒ(A·Aᵀ)bₒᵀ: B·A is never made.
 */
export function rowLengths(weight: Value, a: Value, b: Value, s: number): Value {
  const [out] = weight.dims
  const sum = (op: string, x: Value): Value =>
    emitOne(
      op,
      [x, ints(1)],
      { dtype: 'float32', dims: [out!, 1] },
      { attributes: { keepdims: 1 } },
    )
  const crossed = sum('ReduceSum', mul(linear(weight, a), b))
  const own = sum('ReduceSum', mul(gemm(b, linear(a, a)), b))
  const update = add(scale(crossed, 2 * s), scale(own, s * s))
  const squares = add(sum('ReduceSumSquare', weight), update)
  const lengths = emitOne('Sqrt', [squares], squares)
  return emitOne('Reshape', [lengths, ints(1, -1)], { dtype: 'float32', dims: [1, out!] })
}

/** What W + s·B·A is multiplied by to give its rows the lengths `magnitude` [1, out], which alone get a gradient. */
export function gainOf(magnitude: Value, lengths: Value): Value {
  const gain = emitOne('Div', [magnitude, lengths], magnitude)
  return withGradient('DoRA', gain, [magnitude], (dy) => [div(dy, lengths)])
}
