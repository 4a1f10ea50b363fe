// Dropout whose mask is computed from what the run is fed, so that the same feeds drop the same elements.

import { int32 } from '../../tensor.ts'
import { constant, scalar, type Value } from '../graph.ts'
import { greaterOrEqual, mul, toFloat } from './elementwise.ts'

/**
 * Each element of x [N, D] becomes 0 with the probability `rate`, else it is divided by 1 − rate. Its fate is drawn by
 * the product rows[n]·columns[d] modulo 2³² of random odd numbers, `rows` [N, 1] and `columns` [1, D] int32:
 * multiply-shift hashing (Dietzfelbinger et al., 1997), so N + D random numbers serve for N·D elements.
 */
export function dropout(x: Value, rows: Value, columns: Value, rate: number): Value {
  const drawn = mul(rows, columns) // uniform over the odd int32
  const threshold = constant(int32([], [Math.round(rate * 2 ** 32) - 2 ** 31]))
  const kept = toFloat(greaterOrEqual(drawn, threshold))
  return mul(x, mul(kept, scalar(1 / (1 - rate))))
}
