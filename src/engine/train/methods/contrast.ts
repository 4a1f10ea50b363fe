// InfoNCE over a batch of embedded texts (arXiv 1807.03748), with its gradient, and how well anchors find their own.
// Pure: rows of numbers in, numbers out.

/** Embedded texts of length 1, [texts, D]; anchor and positive of each example, and the negatives that some have. */
export interface Embedded {
  readonly vectors: Float32Array
  readonly width: number
  /** Indices of rows. */
  readonly anchors: readonly number[]
  readonly positives: readonly number[]
  readonly negatives: readonly number[]
}

export interface Contrast {
  /** Mean over anchors of −ln softmax(anchor · candidates / temperature) at its own positive. */
  readonly loss: number
  /** Of each anchor. */
  readonly losses: Float32Array
  /** Of the loss, by the vectors. */
  readonly gradient: Float32Array
  /** Anchors whose own positive is the nearest candidate. */
  readonly nearest: number
}

/** Each anchor against all positives and all negatives of the batch: what is another's positive is no answer to it. */
export function infoNce(embedded: Embedded, temperature: number): Contrast {
  const { vectors, width: D, anchors } = embedded
  const candidates = [...embedded.positives, ...embedded.negatives]
  const gradient = new Float32Array(vectors.length)
  const scores = new Float64Array(candidates.length)
  const losses = new Float32Array(anchors.length)
  let loss = 0
  let nearest = 0
  for (const [i, anchor] of anchors.entries()) {
    let most = Number.NEGATIVE_INFINITY
    for (const [j, candidate] of candidates.entries()) {
      scores[j] = dot(vectors, D, anchor, candidate) / temperature
      most = Math.max(most, scores[j]!)
    }
    const own = scores[i]!
    if (own === most) nearest++
    let sum = 0
    for (let j = 0; j < scores.length; j++) {
      scores[j] = Math.exp(scores[j]! - most)
      sum += scores[j]!
    }
    losses[i] = Math.log(sum) + most - own
    loss += (Math.log(sum) + most - own) / anchors.length
    // d loss / d score = (p − onehot) / anchors,   score = a·c / temperature
    for (const [j, candidate] of candidates.entries()) {
      const share = (scores[j]! / sum - (j === i ? 1 : 0)) / (anchors.length * temperature)
      for (let k = 0; k < D; k++) {
        gradient[anchor * D + k]! += share * vectors[candidate * D + k]!
        gradient[candidate * D + k]! += share * vectors[anchor * D + k]!
      }
    }
  }
  return { loss, losses, gradient, nearest }
}

/**
 * The mean over anchors of 1 / rank of their own positive among all positives and negatives, 0 beyond the tenth.
 * A candidate that is as near as the positive goes before it.
 */
export function meanReciprocalRank(embedded: Embedded): number {
  const { vectors, width: D, anchors, positives, negatives } = embedded
  const candidates = [...positives, ...negatives]
  let sum = 0
  for (const [i, anchor] of anchors.entries()) {
    const own = dot(vectors, D, anchor, positives[i]!)
    let rank = 1
    for (let j = 0; j < candidates.length && rank <= 10; j++)
      if (j !== i && dot(vectors, D, anchor, candidates[j]!) >= own) rank++
    if (rank <= 10) sum += 1 / rank
  }
  return anchors.length === 0 ? 0 : sum / anchors.length
}

function dot(vectors: Float32Array, D: number, a: number, b: number): number {
  let sum = 0
  for (let k = 0; k < D; k++) sum += vectors[a * D + k]! * vectors[b * D + k]!
  return sum
}
