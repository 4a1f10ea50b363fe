// How much one step of a job computes: how its examples fill the micro-batch's static shape. Pure.

import { packExamples } from '../datasets/pack.ts'
import { packTexts, type RowGroup, rowGroups } from '../datasets/text-batches.ts'
import type { ModelConfig } from '../weights/model-config.ts'
import type { Plan } from './request.ts'

export interface Workload {
  /** Rows of a micro-batch. */
  readonly groups: readonly RowGroup[]
  /** Micro-batches of a step, a mean. */
  readonly microBatches: number
  /** Tokens of a micro-batch that are learned: the mean, and the most. */
  readonly supervised: number
  readonly mostSupervised: number
}

/** What is known of some examples: the tokens of each, and how many of them are learned. */
export interface ExampleSizes {
  readonly lengths: ArrayLike<number>
  readonly trained: ArrayLike<number>
}

/** Batches that are looked at: the file's first ones, which training shuffles. */
const SAMPLE = 64

export function workloadOf(
  plan: Pick<Plan, 'rows' | 'row_length' | 'long_rows' | 'batch_size'>,
  config: ModelConfig,
  { lengths, trained }: ExampleSizes,
): Workload {
  const { rows, row_length: length, long_rows: long, batch_size } = plan
  const shape = { rows, length, long }
  /** Which examples of a batch share a micro-batch. */
  const packed = (batch: readonly number[]): number[][] => {
    const sizes = batch.map((i) => lengths[i]!)
    if (config.encoder)
      return packTexts(sizes, shape).map((rows) => rows.flatMap(({ texts }) => texts))
    const filled = packExamples(sizes, length)
    return Array.from({ length: Math.ceil(filled.length / rows) }, (_, i) =>
      filled.slice(i * rows, (i + 1) * rows).flat(),
    )
  }
  let [batches, microBatches, supervised, mostSupervised] = [0, 0, 0, 0]
  for (let from = 0; from < lengths.length && batches < SAMPLE; from += batch_size) {
    const count = Math.min(batch_size, lengths.length - from)
    const batch = Array.from({ length: count }, (_, i) => from + i)
    batches++
    for (const members of packed(batch)) {
      const learned = members.reduce((sum, i) => sum + trained[batch[i]!]!, 0)
      microBatches++
      supervised += learned
      mostSupervised = Math.max(mostSupervised, learned)
    }
  }
  return {
    groups: rowGroups(shape),
    microBatches: microBatches / Math.max(1, batches),
    supervised: supervised / Math.max(1, microBatches),
    mostSupervised,
  }
}
