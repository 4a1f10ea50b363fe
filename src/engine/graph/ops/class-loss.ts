// Losses over logits that are kept whole, for heads of few outputs; the gradient flows to the logits.

import { int64 } from '../../tensor.ts'
import { constant, emitOne, ints, scalar, size, type Value, withGradient } from '../graph.ts'
import { equal, greater, mul, neg, sub, toFloat } from './elementwise.ts'
import { sumAll } from './reduce.ts'

/** Σ wᵢ · −ln softmax(logitsᵢ)[targetᵢ] for logits [S, L], targets [S] (int64) and weights [S]. */
export function crossEntropy(logits: Value, targets: Value, weights: Value): Value {
  const [s, l] = logits.dims
  const column = emitOne('Unsqueeze', [targets, ints(1)], { dtype: 'int64', dims: [s!, 1] })
  const rowWeights = asColumn(weights)
  const logp = emitOne('LogSoftmax', [logits], logits, { attributes: { axis: -1 } })
  const labels = constant(int64([1, size([l!])], [...Array(size([l!])).keys()]))
  const hot = toFloat(equal(column, labels)) // [S, L]
  const loss = sumAll(mul(mul(neg(logp), hot), rowWeights))
  // dlogits = w·(softmax − onehot)
  return withGradient('CrossEntropy', loss, [logits], (dy) => {
    const p = emitOne('Exp', [logp], logp)
    return [mul(mul(sub(p, hot), rowWeights), dy)]
  })
}

/** −ln softmax(logitsᵢ)[targetᵢ] of logits [S, L] and targets [S], [S, 1]: no gradient flows through it. */
export function crossEntropies(logits: Value, targets: Value): Value {
  const type = { dtype: 'int64', dims: [logits.dims[0]!, 1] } as const
  const column = emitOne('Unsqueeze', [targets, ints(1)], type)
  const logp = emitOne('LogSoftmax', [logits], logits, { attributes: { axis: -1 } })
  const own = { dtype: 'float32', dims: type.dims } as const
  return neg(emitOne('GatherElements', [logp, column], own, { attributes: { axis: 1 } }))
}

/** How many rows of weight above 0 have their target as the most likely of the logits [S, L], a scalar. */
export function countCorrect(logits: Value, targets: Value, weights: Value): Value {
  const type = { dtype: 'int64', dims: [logits.dims[0]!] } as const
  const best = emitOne('ArgMax', [logits], type, { attributes: { axis: 1, keepdims: 0 } })
  return sumAll(mul(toFloat(equal(best, targets)), toFloat(greater(weights, scalar(0)))))
}

/** Σ wᵢ · Σⱼ −(t·ln σ(x) + (1 − t)·ln(1 − σ(x))) for logits x and targets t [S, L], weights [S]. */
export function binaryCrossEntropy(logits: Value, targets: Value, weights: Value): Value {
  const rowWeights = asColumn(weights)
  const softplus = emitOne('Softplus', [logits], logits)
  const loss = sumAll(mul(sub(softplus, mul(logits, targets)), rowWeights))
  // dx = w·(σ(x) − t)
  return withGradient('BinaryCrossEntropy', loss, [logits], (dy) => {
    const p = emitOne('Sigmoid', [logits], logits)
    return [mul(mul(sub(p, targets), rowWeights), dy)]
  })
}

const asColumn = (weights: Value): Value =>
  emitOne('Unsqueeze', [weights, ints(1)], { dtype: 'float32', dims: [weights.dims[0]!, 1] })
