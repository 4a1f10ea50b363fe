// The language-model head with its loss, as one operator: its gradient needs no scatter over the vocabulary.

import { emitOne, ints, scalar, type Value, withGradient } from '../graph.ts'
import { equal, greater, mul, neg, sub, toFloat } from './elementwise.ts'
import { gemm, linear } from './products.ts'
import { sumAll } from './reduce.ts'
import { gather } from './shape.ts'

export interface HeadLoss {
  /** Σ wᵢ · −ln p(targetᵢ), a scalar. */
  loss: Value
  /** How many rows of weight above 0 have their target as the most likely token, a scalar. */
  correct: Value
}

/**
 * Cross-entropy of h [S, D] · weightᵀ [V, D] against `targets` [S] (int64), each row weighted by `weights` [S].
 * The gradient flows to `h` alone: the head is frozen.
 */
export function headLoss(h: Value, weight: Value, targets: Value, weights: Value): HeadLoss {
  const s = h.dims[0]!
  const logits = linear(h, weight) // [S, V]
  const logp = emitOne('LogSoftmax', [logits], logits, { attributes: { axis: -1 } })
  const column = emitOne('Unsqueeze', [targets, ints(1)], { dtype: 'int64', dims: [s, 1] })
  const oneColumn = { dtype: 'float32', dims: [s, 1] } as const
  const picked = emitOne('GatherElements', [logp, column], oneColumn, { attributes: { axis: 1 } })
  const rowWeights = emitOne('Unsqueeze', [weights, ints(1)], oneColumn)
  const loss = sumAll(mul(neg(picked), rowWeights))

  // ∂(−ln p_t)/∂h = (p − onehot(t))·W = p·W − W[t]
  withGradient('HeadLoss', loss, [h], (dy) => {
    const p = emitOne('Exp', [logp], logp)
    const dh = sub(gemm(p, weight), gather(weight, targets))
    return [mul(mul(dh, rowWeights), dy)]
  })

  const best = emitOne(
    'ArgMax',
    [logits],
    { dtype: 'int64', dims: [s] },
    { attributes: { axis: 1, keepdims: 0 } },
  )
  const hit = mul(toFloat(equal(best, targets)), toFloat(greater(weights, scalar(0))))
  return { loss, correct: sumAll(hit) }
}
