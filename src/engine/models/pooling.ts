// Hidden states of a text's tokens → one vector for the text.

import { scalar, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'

/** Keeps a vector of zeros from becoming no number. */
const LEAST_SQUARE = 1e-24

/** The mean of each text's rows of `hidden` [N, D], of length 1: `shares` [S, N] has 1/n where text s has a token. */
export function meanPooled(hidden: Value, shares: Value): Value {
  const mean = op.gemm(shares, hidden) // [S, D]
  const square = op.add(op.reduceSum(op.mul(mean, mean), [-1]), scalar(LEAST_SQUARE))
  return op.div(mean, op.sqrt(square))
}
