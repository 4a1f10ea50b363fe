// What attention does with its scores: the part of it whose gradient is cheaper as a whole than operator by operator.

import { emitOne, type Value, withGradient } from '../graph.ts'
import { mul, sub, unbroadcast } from './elementwise.ts'
import { batchedGemm, matmul } from './products.ts'
import { reduceSum } from './reduce.ts'

/**
 * softmax(scores)·values, scores [..., Q, C], values [..., C, K] → [..., Q, K].
 * Going back, the sum over all that a query sees is had from the K sums that it mixed (arXiv 2205.14135, section 3.1).
 */
export function mixBySoftmax(scores: Value, values: Value): Value {
  const p = emitOne('Softmax', [scores], scores, { attributes: { axis: -1 } })
  const y = matmul(p, values)
  // dp = dy·vᵀ, Σ dp·p = Σ dy·y   ⇒   dscores = p·(dp − Σ dy·y),   dvalues = pᵀ·dy
  return withGradient('MixBySoftmax', y, [scores, values], (dy) => {
    const dp = batchedGemm(dy, values, { transB: true })
    return [
      mul(p, sub(dp, reduceSum(mul(dy, y), [-1]))),
      unbroadcast(batchedGemm(p, dy, { transA: true }), values.dims),
    ]
  })
}
