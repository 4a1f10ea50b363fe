// Pairs of texts → the inputs of the preference step's graph. Pure: token ids in, host tensors out.

import type { Example } from '../datasets/example.ts'
import type { PreferenceExample } from '../datasets/preference-example.ts'
import { float32, type HostTensor } from '../tensor.ts'
import { feedsOf, packedRows, supervisedTokens } from './micro-batch.ts'
import type { StepShape } from './step.ts'

export interface PreferenceBatch {
  /** In the order of the graph's rewards. */
  readonly pairs: readonly PreferenceExample[]
  readonly feeds: Readonly<Record<string, HostTensor>>
}

/**
 * Packs pairs into micro-batches, both texts of a pair in one row. Each of `pairs` weighs the same, so that the losses
 * of all micro-batches of one optimizer step add up to its mean.
 */
export function* preferenceBatches(
  examples: readonly PreferenceExample[],
  shape: StepShape,
): Generator<PreferenceBatch, void, undefined> {
  const share = 1 / examples.length
  for (const rows of packedRows(examples, shape)) {
    const texts = rows.map((row) => row.flatMap(textsOf))
    const { weights: _, ...feeds } = feedsOf(texts, shape, 1)
    yield { pairs: rows.flat(), feeds: { ...feeds, ...sides(texts.flat(), share) } }
  }
}

/** The two texts of a pair as examples of their own. */
function textsOf({ line, tokens, weights, preferred }: PreferenceExample): [Example, Example] {
  return [
    { line, tokens: tokens.subarray(0, preferred), weights: weights.subarray(0, preferred) },
    { line, tokens: tokens.subarray(preferred), weights: weights.subarray(preferred) },
  ]
}

/** Which supervised tokens belong to which pair's preferred text, and which to its other: [pairs, S] of 0 and 1. */
function sides(texts: readonly Example[], share: number): Record<string, HostTensor> {
  const counts = texts.map((text) => supervisedTokens([text]))
  const S = counts.reduce((sum, count) => sum + count, 0)
  const P = texts.length / 2
  const [preferred, other] = [new Float32Array(P * S), new Float32Array(P * S)]
  let at = 0
  for (const [i, count] of counts.entries()) {
    const from = (i >> 1) * S + at
    ;(i % 2 === 0 ? preferred : other).fill(1, from, from + count)
    at += count
  }
  return {
    preferred: float32([P, S], preferred),
    other: float32([P, S], other),
    shares: float32([P, 1], new Float32Array(P).fill(share)),
  }
}
