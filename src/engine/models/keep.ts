// What is kept of a model's activations while their gradients are awaited, and what is computed once more.

import { ints, size, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { recomputed } from '../graph/recompute.ts'

/**
 * Least memory last: everything; the results of products, but not what is cheap between them; the inputs of the
 * model's blocks alone.
 */
export const KEEPS = ['everything', 'products', 'blocks'] as const

export type Keep = (typeof KEEPS)[number]

/** Computes body(...xs); with gradients asked for, it may come to be called twice. */
type Part = (xs: readonly Value[], body: (...xs: Value[]) => Value) => Value

export interface Kept {
  /** One of the model's blocks, [N, D] → [N, D]. */
  readonly block: Part
  /** What lies between products: attention, an activation function. */
  readonly between: Part
}

const plain: Part = (xs, body) => body(...xs)

/** For graphs without gradients, or with all the memory they want. */
export const keepEverything: Kept = { block: plain, between: plain }

export interface KeepOptions {
  readonly keep: Keep
  /** Any int64 input of the graph, of a static shape, that is never negative. */
  readonly positions: Value
  /** All values that are learned. */
  readonly learned: Iterable<Value>
}

/** True, [1], which the runtime cannot know: that the first of some `positions`, int64 of a static shape, is ≥ 0. */
export function alwaysTrue(positions: Value): Value {
  const first = op.slice(op.reshape(positions, [size(positions.dims)]), 0, 0, 1)
  return op.greaterOrEqual(first, ints(0))
}

/** How the parts of a model are computed where so much of it is to be kept. */
export function kept({ keep, positions, learned }: KeepOptions): Kept {
  if (keep === 'everything') return keepEverything
  const always = alwaysTrue(positions)
  const again: Part = (xs, body) => recomputed(xs, body, learned, always)
  return keep === 'blocks' ? { block: again, between: plain } : { block: plain, between: again }
}
