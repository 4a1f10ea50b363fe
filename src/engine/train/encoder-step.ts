// The forward pass of an encoder over packed rows, and the graphs of a step that a method makes of it.

import { input, type Value } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { createDropout } from '../models/dropout.ts'
import { textAttention } from '../models/encoder.ts'
import { encoderArchitectureOf } from '../models/encoders.ts'
import { type BoundTrained, bindTrained, type TrainedLayout } from '../models/trained.ts'
import { type Lora, type Weights, weightsOf } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { StepGraphs, StepShape } from './step.ts'

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

export interface EncoderOutputs {
  /** What evaluation reads. */
  readonly evaluate: Record<string, Value>
  /** What a step reads, the gradients among it. */
  readonly train: Record<string, Value>
}

/** The graphs over one pass; with dropout a second pass, which drops, is what learns. */
export function encoderGraphs(
  mapped: MappedWeights,
  layout: TrainedLayout,
  shape: StepShape,
  outputs: (pass: EncoderPass) => EncoderOutputs,
): StepGraphs {
  const rate = layout.lora?.config.dropout ?? 0
  const dropout = rate > 0 ? createDropout(rate) : undefined
  // Masks have a shape when the graph is built; a head reads as many rows as a batch has texts.
  const drop: Lora['drop'] =
    dropout && ((x, site) => (typeof x.dims[0] === 'number' ? dropout.drop(x, site) : x))
  const plain = outputs(encoderPass(mapped, layout, shape))
  const { train } = drop ? outputs(encoderPass(mapped, layout, shape, drop)) : plain
  return { train: encodeOnnx(train), evaluate: encodeOnnx(plain.evaluate), dropout }
}

/** Feeds without what the graph of this model does not read. */
export function feedsFor<T>(
  { config }: MappedWeights,
  feeds: Readonly<Record<string, T>>,
): Record<string, T> {
  const { types, ...others } = feeds
  return config.encoder?.type_vocab_size && types ? { ...others, types } : others
}
