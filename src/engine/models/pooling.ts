// Hidden states of a text's tokens → one vector for the text.

import { scalar, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'

/** Keeps a vector of zeros from becoming no number. */
const LEAST_SQUARE = 1e-24

/** What each text's rows of `hidden` [N, D] come to, of length 1: `shares` [S, N] has 1/n where text s has a token. */
export function meanPooled(hidden: Value, shares: Value): Value {
  const mean = pooled(hidden, shares) // [S, D]
  const square = op.add(op.reduceSum(op.mul(mean, mean), [-1]), scalar(LEAST_SQUARE))
  return op.div(mean, op.sqrt(square))
}

/** The same of whatever length. */
export const pooled = (hidden: Value, shares: Value): Value => op.gemm(shares, hidden)
