// How far apart two predictions are. For measuring alone: no gradient flows.

import { emitOne, type Value } from '../graph.ts'
import { mul, sub } from './elementwise.ts'
import { sumAll } from './reduce.ts'

/** Σ over rows of KL(softmax p ‖ softmax q) in nats, for logits p and q [S, V]; a scalar. */
export function divergence(p: Value, q: Value): Value {
  const log = (x: Value) => emitOne('LogSoftmax', [x], x, { attributes: { axis: -1 } })
  const logP = log(p)
  return sumAll(mul(emitOne('Exp', [logP], logP), sub(logP, log(q))))
}
