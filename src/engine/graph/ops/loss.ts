// The language-model head with its loss, as one operator: its gradient needs no scatter over the vocabulary.

import { float32 } from '../../tensor.ts'
import { constant, emitOne, ints, scalar, type Value, withGradient } from '../graph.ts'
import { after, unpacked } from '../order.ts'
import { add, div, equal, exp, greater, log, mul, neg, sub, toFloat } from './elementwise.ts'
import { stepsProduct } from './int8.ts'
import { gemm } from './products.ts'
import { sumAll } from './reduce.ts'
import { gather } from './shape.ts'

export interface HeadLoss {
  /** Σ wᵢ · −ln p(targetᵢ), a scalar. */
  loss: Value
  /** How many rows of weight above 0 have their target as the most likely token, a scalar. */
  correct: Value
  /** −ln p(targetᵢ), [S, 1]: no gradient flows through it. */
  losses: Value
}

export interface Head {
  /** [V, D], frozen: what the gradient is computed with, unless there is `int8`. */
  readonly weight: Value
  /** The same in steps, [V, D] int8, and what a step of each column is worth, [D]. */
  readonly int8?: { readonly steps: Value; readonly scale: Value } | undefined
  /** h [S, D] → h·weightᵀ [S, V], in whatever precision. */
  readonly logits: (h: Value) => Value
}

export interface HeadChunks {
  /** Rows that go through the head at a time: [rows, V] is all of the logits that is ever held. */
  readonly rows: number
  /** As many chunks as the most rows of any run need. */
  readonly count: number
  /** True, [1], and unknown to the runtime: with it a chunk waits for the one before, and the head is not copied. */
  readonly always: Value
  /** Whether a chunk's gradient is computed with its loss: without that its logits would have to be held. */
  readonly learning: boolean
}

/**
 * Cross-entropy of the head's logits of h [S, D] against `targets` [S] (int64), each row weighted by `weights` [S].
 * The gradient flows to `h` alone.
 */
export function headLoss(
  h: Value,
  head: Head,
  targets: Value,
  weights: Value,
  chunks: HeadChunks,
): HeadLoss {
  if (chunks.count === 1) {
    const { loss, correct, losses, dh } = chunkLoss(h, head, targets, weights, chunks.always)
    return { loss: withGradient('HeadLoss', loss, [h], (dy) => [mul(dh(), dy)]), correct, losses }
  }
  const losses: Value[] = []
  const hits: Value[] = []
  const columns: Value[] = []
  const dhs: Value[] = []
  for (let i = 0; i < chunks.count; i++) {
    const rowsOf = (x: Value) => someRows(x, i, chunks.rows)
    const before = chunks.learning ? dhs : losses
    const own = after(rowsOf(h), before.slice(-1), chunks.always)
    const part = chunkLoss(own, head, rowsOf(targets), rowsOf(weights), chunks.always)
    losses.push(part.loss)
    hits.push(part.correct)
    columns.push(part.losses)
    if (chunks.learning) dhs.push(part.dh())
  }
  const correct = hits.reduce(add)
  const sum = losses.reduce(add)
  const joined = { dtype: 'float32', dims: [h.dims[0]!, 1] } as const
  const rowLosses = emitOne('Concat', columns, joined, { attributes: { axis: 0 } })
  if (!chunks.learning) return { loss: sum, correct, losses: rowLosses }
  // This rule stands for all that lies between h and the loss, whatever gradients the sum's parts have.
  const all = emitOne('Concat', dhs, h, { attributes: { axis: 0 } })
  const loss = withGradient('HeadLoss', sum, [h], (dy) => [mul(all, dy)])
  return { loss, correct, losses: rowLosses }
}

/** The i-th `count` rows of x, fewer or none where x ends. */
function someRows(x: Value, i: number, count: number): Value {
  const dims = [`${x.dims[0]}.${i}`, ...x.dims.slice(1)]
  return emitOne('Slice', [x, ints(i * count), ints((i + 1) * count), ints(0)], {
    dtype: x.dtype,
    dims,
  })
}

function chunkLoss(
  h: Value,
  { weight, int8, logits: logitsOf }: Head,
  targets: Value,
  weights: Value,
  always: Value,
) {
  const s = h.dims[0]!
  const logits = logitsOf(h) // [S, V]
  const p = emitOne('Softmax', [logits], logits, { attributes: { axis: -1 } })
  const oneColumn = { dtype: 'float32', dims: [s, 1] } as const
  // Of no rows, ReduceMax gives [0, V]: the Reshape makes [0, 1] of it (docs/facts.md).
  const highest = (x: Value) =>
    emitOne('Reshape', [emitOne('ReduceMax', [x, ints(-1)], oneColumn), ints(-1, 1)], oneColumn)
  const column = emitOne('Unsqueeze', [targets, ints(1)], { dtype: 'int64', dims: [s, 1] })
  const rowWeights = emitOne('Unsqueeze', [weights, ints(1)], { dtype: 'float32', dims: [s, 1] })
  const target = emitOne('GatherElements', [logits, column], oneColumn, { attributes: { axis: 1 } })
  // −ln p_t = (max − ln p_max) − l_t: p_max is at least 1/V, where p_t may be too small for a float.
  const most = highest(logits)
  const likeliest = highest(p)
  const total = sub(most, log(likeliest))
  const losses = sub(total, target)
  const loss = sumAll(mul(losses, rowWeights))
  const hit = mul(toFloat(equal(target, most)), toFloat(greater(rowWeights, scalar(0))))

  /** ∂(−ln p_t)/∂h = (p − onehot(t))·W = p·W − W[t] */
  const dh = () => {
    const d = int8
      ? towardsTarget(p, int8, targets, { likeliest, right: exp(neg(losses)) })
      : sub(gemm(p, unpacked(weight, always)), gather(weight, targets))
    return mul(d, rowWeights)
  }
  return { loss, correct: sumAll(hit), losses, dh }
}

/** Steps of the likeliest token: one is left for the dither. */
const STEPS = 254

/** With it the sum of a row's steps, each times 127 at most, stays below 2³¹. */
const LEAST = 2e-5

/**
 * p·W − W[t] for probabilities p [S, V] and W in int8. Most tokens are less likely than half a step, and together they
 * matter: so p is dithered before it is rounded (each token always by the same part of a step), and on average nothing is
 * lost. The steps are as fine as all tokens but the target allow. What the target has beyond the last step is added from the same
 * int8 row as it is subtracted from: where p_t is near 1, both must cancel.
 */
function towardsTarget(
  p: Value,
  { steps, scale }: NonNullable<Head['int8']>,
  targets: Value,
  { likeliest, right }: { likeliest: Value; right: Value },
): Value {
  const room = emitOne('Min', [likeliest, sub(scalar(1), right)], right)
  const step = mul(emitOne('Max', [room, scalar(LEAST)], right), scalar(1 / STEPS)) // [S, 1]
  const dithered = add(mul(p, div(scalar(1), step)), dither(p.dims[1] as number))
  const type = { dtype: 'uint8', dims: p.dims } as const
  const whole = emitOne('QuantizeLinear', [dithered, scalar(1), ZERO], type)
  const beyond = emitOne('Relu', [sub(right, mul(step, scalar(255)))], right)
  const target = mul(toFloat(gather(steps, targets)), scale)
  return add(
    mul(stepsProduct(whole, ZERO, steps, scale), step),
    mul(target, sub(beyond, scalar(1))),
  )
}

const ZERO = constant({ dtype: 'uint8', dims: [], data: Uint8Array.of(0) })

/** For each of n columns a number in −½ … ½, spread evenly by the golden ratio: [1, n]. */
function dither(n: number): Value {
  const golden = (Math.sqrt(5) - 1) / 2
  return constant(
    float32(
      [1, n],
      Float32Array.from({ length: n }, (_, i) => ((i * golden) % 1) - 0.5),
    ),
  )
}
