// The head of each task, as Hugging Face's model of it has one.

import type { ModelConfig } from '../weights/model-config.ts'
import type { EncoderUse } from '../weights/tuned-encoder.ts'
import type { Head } from './encoder.ts'
import { encoderArchitectureOf } from './encoders.ts'
import { linear } from './layers.ts'

/** Over each token alone: one linear layer, whatever the family. */
const tokenHead: Head = {
  tensors: ({ hidden_size: D }, labels) => ({
    fresh: new Map([
      ['classifier.weight', [labels, D]],
      ['classifier.bias', [labels]],
    ]),
  }),
  logits: (hidden, weights) => linear(hidden, weights.at('classifier')),
}

/** The family's own head over the first token, or the one over every token. */
export const classifierHead = (config: ModelConfig, task: 'single' | 'several' | 'tokens'): Head =>
  task === 'tokens' ? tokenHead : encoderArchitectureOf(config).classifier

/** A model answers with the head that it came with, where all of it is there, else with vectors. */
export function encoderUseOf(config: ModelConfig, has: (name: string) => boolean): EncoderUse {
  const head = config.encoder?.head
  const { fresh } = head
    ? classifierHead(config, head.task).tensors(config, head.labels.length)
    : {}
  const whole = fresh && [...fresh.keys()].every(has)
  return head && whole ? { method: 'classification', ...head } : { method: 'embedding' }
}
