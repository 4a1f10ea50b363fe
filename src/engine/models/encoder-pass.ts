// The forward pass of an encoder over packed rows, and the inputs that it reads.

import { input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { textAttention } from './encoder.ts'
import { encoderArchitectureOf } from './encoders.ts'
import { type BoundTrained, bindTrained, type TrainedLayout } from './trained.ts'
import { type Lora, type Weights, weightsOf } from './weights.ts'

export interface EncoderPass {
  /** Final hidden states [B·T, D]. */
  readonly hidden: Value
  readonly weights: Weights
  readonly bound: BoundTrained
}

/** Inputs: `tokens`, `positions`, `segments` and, where the family knows kinds of tokens, `types`, all [B, T] int64. */
export function encoderPass(
  mapped: MappedWeights,
  layout: TrainedLayout,
  { rows: B, length: T }: { rows: number; length: number },
  drop?: Lora['drop'],
): EncoderPass {
  const { config } = mapped
  const bound = bindTrained(layout, drop)
  const weights = weightsOf(mapped, { loras: bound.loras, trained: bound.tensors })
  const flat = (name: string) => op.reshape(input(name, 'int64', [B, T]), [B * T])
  const segments = input('segments', 'int64', [B, T])
  const tokens = {
    ids: flat('tokens'),
    positions: flat('positions'),
    types: config.encoder?.type_vocab_size ? flat('types') : undefined,
  }
  const attend = textAttention(config, { rows: B, length: T, segments })
  const hidden = encoderArchitectureOf(config).hidden(tokens, weights, config, attend)
  return { hidden, weights, bound }
}

/** Feeds without what the graph of this model does not read. */
export function feedsFor<T>(
  { config }: MappedWeights,
  feeds: Readonly<Record<string, T>>,
): Record<string, T> {
  const { types, ...others } = feeds
  return config.encoder?.type_vocab_size && types ? { ...others, types } : others
}
