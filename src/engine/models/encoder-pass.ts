// The forward pass of an encoder over packed rows, and the inputs that it reads.

import { type TextShape, tokensOf } from '../datasets/text-batches.ts'
import { input, type Value } from '../graph/graph.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { textAttention } from './encoder.ts'
import { encoderArchitectureOf } from './encoders.ts'
import { type BoundTrained, bindTrained, type TrainedLayout } from './trained.ts'
import { type Lora, type Weights, weightsOf } from './weights.ts'

export interface EncoderPass {
  /** Final hidden states [N, D]. */
  readonly hidden: Value
  readonly weights: Weights
  readonly bound: BoundTrained
}

/** Inputs: `tokens`, `positions`, `segments` and, where the family knows kinds of tokens, `types`, all [N] int64. */
export function encoderPass(
  mapped: MappedWeights,
  layout: TrainedLayout,
  shape: TextShape,
  drop?: Lora['drop'],
): EncoderPass {
  const { config } = mapped
  const bound = bindTrained(layout, drop)
  const weights = weightsOf(mapped, { loras: bound.loras, trained: bound.tensors })
  const N = tokensOf(shape)
  const flat = (name: string) => input(name, 'int64', [N])
  const tokens = {
    ids: flat('tokens'),
    positions: flat('positions'),
    types: config.encoder?.type_vocab_size ? flat('types') : undefined,
  }
  const attend = textAttention(config, flat('segments'), shape)
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
