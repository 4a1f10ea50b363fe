// How a model multiplies with its frozen weights: the one place that knows in which precision they are kept.

import type { Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { Weights } from './weights.ts'

/** Some projections of one input whose results lie side by side in one matrix y [N, Σ out]. */
export interface Block {
  readonly y: Value
  readonly members: readonly Weights[]
}

/** From x [N, in] and the projections that read it to their results, in the same order. No adapter is added. */
export type Products = (x: Value, ws: readonly Weights[]) => readonly Block[]

/** Each projection for itself, in the weights' own float32. */
export const plainProducts: Products = (x, ws) =>
  ws.map((w) => ({ y: op.linear(x, w.get('weight')), members: [w] }))
