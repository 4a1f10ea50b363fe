// The static shape of a decoder's micro-batch: which rows compute the fewest tokens, attention counted. Pure.

import { packExamples } from '../datasets/pack.ts'
import type { StepShape } from './step.ts'
import type { ShapeOptions } from './text-shape.ts'

/**
 * Tokens of a micro-batch at most, unless one example alone is longer: memory grows with them, and so does the time
 * for which answers wait.
 */
const MICRO_BATCH_TOKENS = 512

/**
 * The rows and row length of a micro-batch that compute the fewest tokens, padding and attention counted, over the
 * batches of the file as it stands; of those that are `brief`, as long as the longest example is with one of them.
 */
export function chooseShape(
  lengths: ArrayLike<number>,
  batchSize: number,
  { longest: least = 0, devices = 1, brief = () => true }: ShapeOptions = {},
): StepShape {
  const longest = longestOf(lengths, least)
  const batches: number[][] = []
  for (let i = 0; i < lengths.length && batches.length < 64; i += batchSize)
    batches.push(Array.prototype.slice.call(lengths, i, i + batchSize))

  let best: { shape: StepShape; cost: number } | undefined
  const shortest = Math.max(64, Math.ceil(longest / 64) * 64)
  for (let length = shortest; length <= Math.max(shortest, MICRO_BATCH_TOKENS); length += 64)
    for (let rows = 1; rows === 1 || rows * length <= MICRO_BATCH_TOKENS; rows *= 2) {
      if (best && !brief({ rows, length })) break
      const cost = batches.reduce((sum, b) => sum + batchCost(b, { rows, length }, devices), 0)
      if (!best || cost < best.cost) best = { shape: { rows, length }, cost }
    }
  return best!.shape
}

/** Tokens that each device computes, attention as length / 3000 of a token's other work, and 32 tokens for starting a run. */
const batchCost = (
  lengths: readonly number[],
  { rows, length }: StepShape,
  devices: number,
): number =>
  Math.ceil(packExamples(lengths, length).length / rows / devices) *
  (rows * length * (1 + length / 3000) + 32)

/** Math.max(...lengths, least) without a stack that grows with the file. */
export function longestOf(lengths: ArrayLike<number>, least = 0): number {
  let longest = least
  for (let i = 0; i < lengths.length; i++) longest = Math.max(longest, lengths[i]!)
  return longest
}
