// The graphs of a step that a method makes of an encoder's forward pass.

import type { TextShape } from '../datasets/text-batches.ts'
import type { Value } from '../graph/graph.ts'
import { createDropout } from '../models/dropout.ts'
import { type EncoderPass, encoderPass } from '../models/encoder-pass.ts'
import type { TrainedLayout } from '../models/trained.ts'
import type { Lora } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { StepGraphs } from './step.ts'

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
  shape: TextShape,
  outputs: (pass: EncoderPass) => EncoderOutputs,
): StepGraphs {
  const rate = layout.lora?.config.dropout ?? 0
  const dropout = rate > 0 ? createDropout(rate) : undefined
  // Masks have a shape when the graph is built; a head reads as many rows as a batch has texts.
  const drop: Lora['drop'] =
    dropout && ((x, site) => (typeof x.dims[0] === 'number' ? dropout.drop(x, site) : x))
  const plain = outputs(encoderPass(mapped, layout, shape))
  const { train } = drop ? outputs(encoderPass(mapped, layout, shape, drop)) : plain
  return { train, evaluate: plain.evaluate, dropout, prepack: mapped.int8 !== undefined }
}
