// DistilBERT: BERT's blocks without token types, and a classifier of two layers (arXiv 1910.01108).

import * as op from '../graph/ops/ops.ts'
import type { EncoderArchitecture } from './encoder.ts'
import { layerNorm, linear, linears } from './layers.ts'

export const distilbert: EncoderArchitecture = {
  names: ['distilbert'],
  prefix: 'distilbert',

  hidden({ ids, positions }, weights, config, attend) {
    const model = weights.at('distilbert')
    const table = (name: string) => model.at(`embeddings.${name}`).get('weight')
    let x = op.add(
      op.gather(table('word_embeddings'), ids),
      op.gather(table('position_embeddings'), positions),
    )
    x = layerNorm(x, model.at('embeddings.LayerNorm'), config) // [N, D]
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const w = model.at(`transformer.layer.${i}`)
      x = w.kept.block([x], (x) => {
        const self = w.at('attention')
        const [q, k, v] = linears(x, [self.at('q_lin'), self.at('k_lin'), self.at('v_lin')])
        const mixed = w.kept.between([q!, k!, v!], (q, k, v) => attend(q, k, v, i))
        const a = linear(mixed, self.at('out_lin'))
        const y = layerNorm(op.add(a, x), w.at('sa_layer_norm'), config)
        const g = w.kept.between([linear(y, w.at('ffn.lin1'))], op.gelu)
        const m = linear(g, w.at('ffn.lin2'))
        return layerNorm(op.add(m, y), w.at('output_layer_norm'), config)
      })
    }
    return x
  },

  classifier: {
    tensors: ({ hidden_size: D }, labels) => ({
      fresh: new Map([
        ['pre_classifier.weight', [D, D]],
        ['pre_classifier.bias', [D]],
        ['classifier.weight', [labels, D]],
        ['classifier.bias', [labels]],
      ]),
    }),
    logits: (hidden, weights) =>
      linear(op.relu(linear(hidden, weights.at('pre_classifier'))), weights.at('classifier')),
  },
}
