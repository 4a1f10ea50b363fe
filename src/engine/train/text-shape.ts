// The static shape of an encoder's micro-batch: which rows compute the fewest tokens, attention counted. Pure.

import { packTexts, rowGroups, type TextShape, tokensOf } from '../datasets/text-batches.ts'
import type { ModelConfig } from '../weights/model-config.ts'

/**
 * Tokens of a micro-batch at most, unless one text alone is longer. Encoders are small: a whole optimizer batch of short
 * texts is one run.
 */
const MOST_TOKENS = 1024
/** For starting a run, in tokens. */
const RUN_TOKENS = 96
/** Row lengths are multiples of it. */
const GRAIN = 32
/** Batches of the file that are looked at. */
const SAMPLE = 64
/** Rows of a micro-batch at most, when many short texts fit into few tokens. */
const MOST_ROWS = 32

export interface ShapeOptions {
  /** Tokens of the longest validation example. */
  readonly longest?: number | undefined
  readonly devices?: number | undefined
  /** Whether a micro-batch of this shape takes no longer than it should; absent: every one. */
  readonly brief?: ((shape: TextShape) => boolean) | undefined
}

/**
 * The rows that cost least over the batches of the file as it stands: short ones for most texts and, where some are
 * longer, one row that takes the longest, the validation file's `longest` too. `lengths` are those of the training
 * file, in its order. Several devices compute as many runs at once. Shapes that are not brief are left out, but for the
 * smallest.
 */
export function chooseTextShape(
  config: ModelConfig,
  lengths: ArrayLike<number>,
  batchSize: number,
  { longest: least = 0, devices = 1, brief = () => true }: ShapeOptions = {},
): TextShape {
  const batches: number[][] = []
  for (let i = 0; i < lengths.length && batches.length < SAMPLE; i += batchSize)
    batches.push(Array.prototype.slice.call(lengths, i, i + batchSize))
  let longest = least
  for (let i = 0; i < lengths.length; i++) longest = Math.max(longest, lengths[i]!)
  const whole = Math.max(GRAIN, Math.ceil(longest / GRAIN) * GRAIN)

  let best: { shape: TextShape; cost: number } | undefined
  for (let length = GRAIN; length <= Math.max(whole, MOST_TOKENS); length += GRAIN) {
    const long = length < whole ? { rows: 1, length: whole } : undefined
    for (let rows = 1; rows <= MOST_ROWS; rows++) {
      const shape: TextShape = { rows, length, ...(long && { long }) }
      if (rows > 1 && tokensOf(shape) > MOST_TOKENS) break
      if (best && !brief(shape)) break
      const one = runCost(config, shape)
      const cost = batches.reduce(
        (sum, b) => sum + one * Math.ceil(packTexts(b, shape).length / devices),
        0,
      )
      if (!best || cost < best.cost) best = { shape, cost }
    }
  }
  return best!.shape
}

/** Of one run, in tokens of the work beside attention. */
const runCost = (config: ModelConfig, shape: TextShape): number =>
  rowGroups(shape).reduce(
    (sum, { rows, length }) => sum + rows * length * (1 + length / evenLength(config)),
    RUN_TOKENS,
  )

/**
 * The row length at which attention takes as long as all else: it weighs more the fewer weights there are.
 * all-MiniLM-L6-v2 took as long for 1 × 192 as for half as many tokens more in 3 × 64, on two Zen 4 cores.
 */
function evenLength(config: ModelConfig): number {
  const { hidden_size: D, intermediate_size: F, num_attention_heads: heads } = config
  return (D * (4 * D + 2 * F)) / (800 * heads)
}
