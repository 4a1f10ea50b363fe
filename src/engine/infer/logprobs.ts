// How probable the model found a token: log-softmax of one row of logits. Knows numbers only.

/** JSON has no −∞; OpenAI writes this. */
const IMPOSSIBLE = -9999

export interface RowLogprobs {
  logprob: number
  /** The most probable tokens, the lower id first among equals. */
  top: { id: number; logprob: number }[]
}

/** Natural log-probabilities of `token` and of the `top` most probable ones, summed in double precision. */
export function logprobsOf(logits: Float32Array, token: number, top: number): RowLogprobs {
  let max = Number.NEGATIVE_INFINITY
  for (let i = 0; i < logits.length; i++) if (logits[i]! > max) max = logits[i]!
  let sum = 0
  for (let i = 0; i < logits.length; i++) {
    const share = Math.exp(logits[i]! - max)
    if (share > 0) sum += share // a NaN logit is an impossible token
  }
  const norm = max + Math.log(sum)
  const logprob = (id: number) => {
    const value = logits[id]! - norm
    return value > IMPOSSIBLE ? Math.min(value, 0) : IMPOSSIBLE
  }
  return {
    logprob: logprob(token),
    top: best(logits, top).map((id) => ({ id, logprob: logprob(id) })),
  }
}

/** Ids of the highest logits, by insertion: `count` is at most 20. */
function best(logits: Float32Array, count: number): number[] {
  const ids: number[] = []
  if (count === 0) return ids
  let least = Number.NEGATIVE_INFINITY
  for (let i = 0; i < logits.length; i++) {
    const x = logits[i]!
    if (Number.isNaN(x) || (ids.length === count && x <= least)) continue
    let at = ids.length
    while (at > 0 && logits[ids[at - 1]!]! < x) at--
    ids.splice(at, 0, i)
    if (ids.length > count) ids.pop()
    least = logits[ids.at(-1)!]!
  }
  return ids
}
