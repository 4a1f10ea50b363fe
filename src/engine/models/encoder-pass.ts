// The forward pass of an encoder over packed rows, and the inputs that it reads.

import { type TextShape, tokensOf } from '../datasets/text-batches.ts'
import { constant, input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { int64 } from '../tensor.ts'
import type { MappedWeights, ModelConfig } from '../weights/checkpoint.ts'
import { encoderOf, textAttention } from './encoder.ts'
import { encoderArchitectureOf } from './encoders.ts'
import { type BoundTrained, bindTrained, type TrainedLayout } from './trained.ts'
import { type Lora, type Weights, weightsOf } from './weights.ts'

export interface EncoderPass {
  /** Final hidden states [N, D]. */
  readonly hidden: Value
  readonly weights: Weights
  readonly bound: BoundTrained
}

/** Inputs: `tokens`, `positions`, `segments` and, where the family tells a second text from the first, `types`, all [N] int64. */
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
  const ids = flat('tokens')
  const types = tellsTypes(config) ? flat('types') : firstTypes(config, ids)
  const tokens = { ids, positions: flat('positions'), types }
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
  return tellsTypes(config) && types ? { ...others, types } : others
}

/** Whether the family tells a second text from the first. */
const tellsTypes = (config: ModelConfig): boolean => encoderOf(config).type_vocab_size > 1

/** The kind of every token where there is only one, as RoBERTa has it, or none. */
export const firstTypes = (config: ModelConfig, ids: Value): Value | undefined =>
  encoderOf(config).type_vocab_size > 0 ? op.mul(ids, constant(int64([1], [0]))) : undefined
