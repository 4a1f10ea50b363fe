// Products with frozen weights in float16: 11 bits of precision, nothing above 65,504, and below 6e-8 only zero.

import { emitOne, ints, type Value, withGradient } from '../graph.ts'
import { toFloat } from './elementwise.ts'
import { gemm } from './products.ts'

/** Rounded to float16; no gradient flows. */
const toHalf = (x: Value): Value =>
  seen(emitOne('Cast', [x], { dtype: 'float16', dims: x.dims }, { attributes: { to: 10 } }))

/**
 * The same matrix, in float16 for all to see. Where a device has no such product the runtime takes float32 for it, and
 * would leave out a rounding just before or after: a processor could not show what others do.
 */
const seen = (x: Value): Value => emitOne('Reshape', [x, ints(-1, Number(x.dims[1]))], x)

/**
 * x [N, in] · weightᵀ for a frozen weight [out, in] → [N, out] float32; both are rounded to float16 before, the result
 * after. The gradient is dx = dy·weight in the same way, so a dy that is too small comes to nothing: it is to be scaled.
 */
export function halfLinear(x: Value, weight: Value): Value {
  const rounded = toHalf(weight)
  const y = toFloat(seen(gemm(toHalf(x), rounded, { transB: true })))
  return withGradient('HalfLinear', y, [x], (dy) => [toFloat(seen(gemm(toHalf(dy), rounded)))])
}
