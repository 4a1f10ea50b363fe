// The language-model head as log-probabilities of given tokens: for losses that weigh them by one another.

import { emitOne, ints, type Value, withGradient } from '../graph.ts'
import { unpacked } from '../order.ts'
import { equal, mul, sub, toFloat } from './elementwise.ts'
import { gemm, linear } from './products.ts'
import { gather } from './shape.ts'

export interface LogProbs {
  /** ln p(target) of each row, [S, 1]. */
  logProbs: Value
  /** 1 where the target is the most likely token, else 0: [S, 1]. */
  hits: Value
}

/**
 * ln softmax(h·weightᵀ) at `targets` [S] (int64), h [S, D], weight [V, D]. The gradient flows to `h` alone: the head
 * is frozen. `always` [1] is true, and the runtime must not know it beforehand.
 */
export function headLogProbs(h: Value, head: Value, targets: Value, always: Value): LogProbs {
  const s = h.dims[0]!
  const weight = unpacked(head, always)
  const logits = linear(h, weight) // [S, V]
  const all = emitOne('LogSoftmax', [logits], logits, { attributes: { axis: -1 } })
  const column = emitOne('Unsqueeze', [targets, ints(1)], { dtype: 'int64', dims: [s, 1] })
  const oneColumn = { dtype: 'float32', dims: [s, 1] } as const
  const logProbs = emitOne('GatherElements', [all, column], oneColumn, { attributes: { axis: 1 } })

  // ∂ ln p_t/∂h = W[t] − p·W
  withGradient('HeadLogProbs', logProbs, [h], (dy) => {
    const p = emitOne('Exp', [all], all)
    return [mul(sub(gather(weight, targets), gemm(p, weight)), dy)]
  })

  const best = { dtype: 'int64', dims: [s, 1] } as const
  const found = emitOne('ArgMax', [logits], best, { attributes: { axis: 1, keepdims: 1 } })
  return { logProbs, hits: toFloat(equal(found, column)) }
}
