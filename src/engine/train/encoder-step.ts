// The forward pass of an encoder over packed rows, and the inputs that it reads.

import { input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { textAttention } from '../models/encoder.ts'
import { encoderArchitectureOf } from '../models/encoders.ts'
import { type BoundTrained, bindTrained, type TrainedLayout } from '../models/trained.ts'
import { type Weights, weightsOf } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { StepShape } from './step.ts'

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
  { rows: B, length: T }: StepShape,
): EncoderPass {
  const { config } = mapped
  const bound = bindTrained(layout)
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
