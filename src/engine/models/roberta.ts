// RoBERTa: BERT's blocks, and a classifier of two layers (arXiv 1907.11692).

import * as op from '../graph/ops/ops.ts'
import { bertHidden } from './bert.ts'
import type { EncoderArchitecture } from './encoder.ts'
import { linear } from './layers.ts'

export const roberta: EncoderArchitecture = {
  names: ['roberta'],
  prefix: 'roberta',
  hidden: (tokens, weights, config, attend) =>
    bertHidden(tokens, weights.at('roberta'), config, attend),

  classifier: {
    tensors: ({ hidden_size: D }, labels) => ({
      fresh: new Map([
        ['classifier.dense.weight', [D, D]],
        ['classifier.dense.bias', [D]],
        ['classifier.out_proj.weight', [labels, D]],
        ['classifier.out_proj.bias', [labels]],
      ]),
    }),
    logits(hidden, weights) {
      const w = weights.at('classifier')
      return linear(op.tanh(linear(hidden, w.at('dense'))), w.at('out_proj'))
    },
  },
}
