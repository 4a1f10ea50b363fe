// Examples → the inputs of the step graph. Pure: token ids in, host tensors out.

import type { Example } from '../datasets/example.ts'
import { packExamples } from '../datasets/pack.ts'
import { float32, type HostTensor, int64 } from '../tensor.ts'
import type { StepShape } from './step.ts'

export interface MicroBatch {
  /** The examples that lie in its rows: their supervised tokens follow each other in this order. */
  readonly examples: readonly Example[]
  readonly feeds: Readonly<Record<string, HostTensor>>
}

/** Examples that are packed together at most: first fit costs the square of them. */
const PACKED_TOGETHER = 512

/**
 * Packs examples into rows of the step's length and rows into micro-batches, one at a time as they are asked for.
 * Weights are divided by `totalWeight`, so that the losses of all micro-batches of one optimizer step add up to
 * its mean. Throws for an example longer than a row.
 */
export function* microBatches(
  examples: readonly Example[],
  shape: StepShape,
  totalWeight: number,
): Generator<MicroBatch, void, undefined> {
  for (const rows of packedRows(examples, shape))
    yield { examples: rows.flat(), feeds: feedsOf(rows, shape, totalWeight) }
}

/** The rows of each micro-batch, as the examples that lie in them. */
export function* packedRows<E extends Example>(
  examples: readonly E[],
  shape: StepShape,
): Generator<E[][], void, undefined> {
  for (let from = 0; from < examples.length; from += PACKED_TOGETHER) {
    const some = examples.slice(from, from + PACKED_TOGETHER)
    const rows = packExamples(
      some.map((e) => e.tokens.length),
      shape.length,
    )
    for (let i = 0; i < rows.length; i += shape.rows)
      yield rows.slice(i, i + shape.rows).map((row) => row.map((j) => some[j]!))
  }
}

/** Unused places are tokens of id 0 in a segment of their own, which no supervised token sees. */
export function feedsOf(
  rows: readonly (readonly Example[])[],
  { rows: B, length: T }: StepShape,
  totalWeight: number,
): Record<string, HostTensor> {
  const tokens = new Int32Array(B * T)
  const positions = new Int32Array(B * T)
  const segments = new Int32Array(B * T)
  const index: number[] = []
  const targets: number[] = []
  const weights: number[] = []

  for (const [b, row] of rows.entries()) {
    let at = b * T
    for (const [segment, example] of row.entries()) {
      for (let i = 0; i < example.tokens.length; i++, at++) {
        tokens[at] = example.tokens[i]!
        positions[at] = i
        segments[at] = segment + 1
        const weight = example.weights[i + 1]
        if (!weight) continue
        index.push(at)
        targets.push(example.tokens[i + 1]!)
        weights.push(weight / totalWeight)
      }
    }
  }
  return {
    tokens: int64([B, T], tokens),
    positions: int64([B, T], positions),
    segments: int64([B, T], segments),
    index: int64([index.length], index),
    targets: int64([targets.length], targets),
    weights: float32([weights.length], Float32Array.from(weights)),
  }
}

/** The sum of all loss weights: what a mean over supervised tokens divides by. */
export const totalWeight = (examples: readonly Example[]): number =>
  examples.reduce((sum, e) => e.weights.reduce((n, w) => n + w, sum), 0)

/** Tokens with a loss weight above 0. */
export const supervisedTokens = (examples: readonly Example[]): number =>
  examples.reduce((sum, e) => e.weights.reduce((n, w) => n + (w > 0 ? 1 : 0), sum), 0)
