// Dynamic loss scaling (arXiv 1710.03740): the loss of a step whose products are in float16 is multiplied by as much as
// its gradient bears, so that small gradients are not rounded to nothing. Pure, but for the graph's input.

import { input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { float32 } from '../tensor.ts'
import type { Feeds } from './methods/method.ts'

/** What a resume needs of it. */
export interface LossScale {
  /** A power of two, so that it is taken away again without rounding. */
  readonly scale: number
  /** Steps since it last changed. */
  readonly steps: number
  /** Steps of the job in which nothing was learned, for their gradient was no finite number. */
  readonly skipped: number
}

/** As PyTorch's GradScaler has them. */
const START = 2 ** 16
const GROWS_AFTER = 2000
/** At it a gradient that is not finite is not so for its scale. */
const LEAST = 1
const MOST = 2 ** 24

export const freshScale: LossScale = { scale: START, steps: 0, skipped: 0 }

/** Twice as much after many good steps. */
export function afterGoodStep({ scale, steps, skipped }: LossScale): LossScale {
  if (steps + 1 < GROWS_AFTER) return { scale, steps: steps + 1, skipped }
  return { scale: Math.min(MOST, 2 * scale), steps: 0, skipped }
}

/** Half as much, and the step is left out; undefined where less would not help. */
export const afterOverflow = ({ scale, skipped }: LossScale): LossScale | undefined =>
  scale > LEAST ? { scale: scale / 2, steps: 0, skipped: skipped + 1 } : undefined

/** Divides a gradient by the scale; whether all of it is finite. */
export function unscale(gradient: Float32Array, { scale }: LossScale): boolean {
  const factor = 1 / scale
  // A product with 0 is NaN exactly where something is not finite.
  let nothing = 0
  for (let i = 0; i < gradient.length; i++) {
    gradient[i]! *= factor
    nothing += 0 * gradient[i]!
  }
  return nothing === 0
}

/** What autodiff starts from over weights like these: `dy` (absent: 1), scaled where products are in float16. */
export function startingGradient({ half }: { half?: boolean | undefined }, dy?: Value) {
  if (!half) return dy
  const scale = input('loss_scale', 'float32', [])
  return dy ? op.mul(dy, scale) : scale
}

/** The feed of `startingGradient`'s input. */
export const scaleFeeds = ({ scale }: LossScale): Feeds => ({
  loss_scale: float32([], Float32Array.of(scale)),
})
