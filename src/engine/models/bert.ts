// BERT: learned positions, token types, post-norm blocks, GELU, a pooler before the classifier (arXiv 1810.04805).

import { ints, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { ModelConfig } from '../weights/model-config.ts'
import { type EncoderArchitecture, type EncoderTokens, encoderOf } from './encoder.ts'
import { type Attend, layerNorm, linear, linears } from './layers.ts'
import type { Weights } from './weights.ts'

/** The forward pass that BERT and RoBERTa share, over the weights of their own prefix. */
export function bertHidden(
  { ids, positions, types }: EncoderTokens,
  model: Weights,
  config: ModelConfig,
  attend: Attend,
): Value {
  const { position_offset } = encoderOf(config)
  const table = (name: string) => model.at(`embeddings.${name}`).get('weight')
  const places = position_offset > 0 ? op.add(positions, ints(position_offset)) : positions
  let x = op.add(
    op.gather(table('word_embeddings'), ids),
    op.gather(table('position_embeddings'), places),
  )
  if (types) x = op.add(x, op.gather(table('token_type_embeddings'), types))
  x = layerNorm(x, model.at('embeddings.LayerNorm'), config) // [N, D]
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const w = model.at(`encoder.layer.${i}`)
    x = w.kept.block([x], (x) => {
      const self = w.at('attention.self')
      const [q, k, v] = linears(x, [self.at('query'), self.at('key'), self.at('value')])
      const mixed = w.kept.between([q!, k!, v!], (q, k, v) => attend(q, k, v, i))
      const a = linear(mixed, w.at('attention.output.dense'))
      const y = layerNorm(op.add(a, x), w.at('attention.output.LayerNorm'), config)
      const g = w.kept.between([linear(y, w.at('intermediate.dense'))], op.gelu)
      const m = linear(g, w.at('output.dense'))
      return layerNorm(op.add(m, y), w.at('output.LayerNorm'), config)
    })
  }
  return x
}

export const bert: EncoderArchitecture = {
  names: ['bert'],
  prefix: 'bert',
  hidden: (tokens, weights, config, attend) =>
    bertHidden(tokens, weights.at('bert'), config, attend),

  classifier: {
    tensors: ({ hidden_size: D }, labels) => ({
      fresh: new Map([
        ['classifier.weight', [labels, D]],
        ['classifier.bias', [labels]],
      ]),
      given: new Map([
        ['bert.pooler.dense.weight', [D, D]],
        ['bert.pooler.dense.bias', [D]],
      ]),
    }),
    logits: (hidden, weights) =>
      linear(op.tanh(linear(hidden, weights.at('bert.pooler.dense'))), weights.at('classifier')),
  },
}
