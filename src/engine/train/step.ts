// The training step as graphs: loss, correct predictions and the flat gradient of one micro-batch.

import { gradients } from '../graph/autodiff.ts'
import { type Graph, input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { bindAdapter, flatten, type LoraLayout } from '../models/adapters.ts'
import { createDropout, type Dropout } from '../models/dropout.ts'
import { architectureOf } from '../models/index.ts'
import { alwaysTrue, type Keep, kept } from '../models/keep.ts'
import { linear, packedAttention } from '../models/layers.ts'
import { int8Rows } from '../models/products.ts'
import { type Weights, weightsOf } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { startingGradient } from './loss-scale.ts'

/** Supervised tokens that go through the head at a time: logits of a large vocabulary outweigh all else. */
export const HEAD_ROWS = 256

/** The static shape of a micro-batch, B rows of T tokens, and what is kept of it. */
export interface StepShape {
  readonly rows: number
  readonly length: number
  /** Default: everything. */
  readonly keep?: Keep
}

export interface StepGraphs {
  /** Outputs `loss`, `correct` (scalars), `losses` [S, 1] and `gradient` [P]. */
  readonly train: Graph
  /** Outputs all but the gradient. */
  readonly evaluate: Graph
  /** What drops in `train`, and feeds it; evaluation never drops. */
  readonly dropout?: Dropout | undefined
  /**
   * Whether frozen weights are laid out anew for the products of `train`: in int8 a tenth of the time, and no more memory,
   * for the mapped ones are not needed then. In float32 the copies would be as large as the model.
   */
  readonly prepack: boolean
}

/** Hidden states [B·T, D] of packed rows, before the head, or those of the places `wanted` [S] alone. */
export function hiddenRows(
  { config }: MappedWeights,
  model: Weights,
  { tokens, positions, segments }: Readonly<Record<'tokens' | 'positions' | 'segments', Value>>,
  wanted?: Value,
): Value {
  const [B, T] = tokens.dims.map(Number) as [number, number]
  const attend = packedAttention(config, { rows: B, length: T, positions, segments })
  const flat = { ids: op.reshape(tokens, [B * T]), positions: op.reshape(positions, [B * T]) }
  return architectureOf(config).hidden({ ...flat, wanted }, model, config, attend)
}

/**
 * Inputs of both graphs: `tokens`, `positions`, `segments` [B, T] int64; `index` [S] int64, the places in 0 … B·T−1
 * whose next token is supervised; `targets` [S] int64; `weights` [S] float32; `adapter` [P] float32.
 * The loss is Σ weights · cross-entropy: the caller divides by the tokens of the whole optimizer batch.
 */
export function buildStep(mapped: MappedWeights, layout: LoraLayout, shape: StepShape): StepGraphs {
  const { config } = mapped
  const { rows: B, length: T, keep = 'everything' } = shape
  const architecture = architectureOf(config)

  const tokens = input('tokens', 'int64', [B, T])
  const positions = input('positions', 'int64', [B, T])
  const segments = input('segments', 'int64', [B, T])
  const index = input('index', 'int64', ['S'])
  const targets = input('targets', 'int64', ['S'])
  const weights = input('weights', 'float32', ['S'])
  const adapter = input('adapter', 'float32', [layout.parameters])
  const always = alwaysTrue(positions)

  const forward = (learning: boolean, drop?: Dropout['drop']) => {
    const { loras, parts } = bindAdapter(layout, adapter, drop)
    const model = weightsOf(mapped, { loras, kept: kept({ keep, positions, learned: parts }) })
    const rows = { tokens, positions, segments }

    // Only supervised places reach the head, and most of the last layer: but dropout is drawn for all.
    const supervised: Value = drop // [S, D]
      ? op.pick(hiddenRows(mapped, model, rows), index)
      : hiddenRows(mapped, model, rows, index)
    const head = architecture.head(model, config)
    const chunks = { rows: HEAD_ROWS, count: Math.ceil((B * T) / HEAD_ROWS), always, learning }
    const { loss, correct, losses } = op.headLoss(
      supervised,
      {
        weight: head.get('weight'),
        int8: int8Rows(mapped.int8, head),
        logits: (h) => linear(h, head),
      },
      targets,
      weights,
      chunks,
    )
    return { parts, outputs: { loss, correct, losses } }
  }
  const rate = layout.config.dropout ?? 0
  const dropout = rate > 0 ? createDropout(rate) : undefined
  const { outputs, parts } = forward(true, dropout?.drop)
  const gradient = flatten(gradients(outputs.loss, parts, startingGradient(mapped)), layout)
  return {
    train: { ...outputs, gradient },
    evaluate: forward(false).outputs,
    dropout,
    prepack: mapped.int8 !== undefined,
  }
}
