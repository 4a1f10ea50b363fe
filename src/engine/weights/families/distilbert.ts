// DistilBERT on disk: a BERT of half the layers without token types, under names of its own.

import { headOf } from './encoder.ts'
import type { Family, Shapes } from './family.ts'

export const distilbert: Family = {
  names: ['distilbert'],
  linear: ['q_lin', 'k_lin', 'v_lin', 'out_lin', 'lin1', 'lin2'],

  config(fields) {
    const { size } = fields
    fields.only('activation', 'gelu')
    const hidden_size = size('dim')
    const num_attention_heads = size('n_heads')
    const head_dim = hidden_size / num_attention_heads
    if (!Number.isSafeInteger(head_dim))
      fields.refuse(`${num_attention_heads} heads do not share dim ${hidden_size} evenly`)
    return {
      model_type: 'distilbert',
      hidden_size,
      intermediate_size: size('hidden_dim'),
      num_hidden_layers: size('n_layers'),
      num_attention_heads,
      num_key_value_heads: num_attention_heads,
      head_dim,
      vocab_size: size('vocab_size'),
      max_position_embeddings: size('max_position_embeddings', 512),
      norm_eps: 1e-12,
      tie_word_embeddings: false,
      encoder: { type_vocab_size: 0, position_offset: 0, ...headOf(fields) },
    }
  },

  tensors(config) {
    const D = config.hidden_size
    const F = config.intermediate_size
    const shapes: Shapes = new Map()
    const layer = (name: string, weight: readonly number[]) => {
      shapes.set(`distilbert.${name}.weight`, weight)
      shapes.set(`distilbert.${name}.bias`, [weight[0]!])
    }
    shapes.set('distilbert.embeddings.word_embeddings.weight', [config.vocab_size, D])
    shapes.set('distilbert.embeddings.position_embeddings.weight', [
      config.max_position_embeddings,
      D,
    ])
    layer('embeddings.LayerNorm', [D])
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const at = `transformer.layer.${i}`
      for (const name of ['q_lin', 'k_lin', 'v_lin', 'out_lin'])
        layer(`${at}.attention.${name}`, [D, D])
      layer(`${at}.sa_layer_norm`, [D])
      layer(`${at}.ffn.lin1`, [F, D])
      layer(`${at}.ffn.lin2`, [D, F])
      layer(`${at}.output_layer_norm`, [D])
    }
    return shapes
  },

  optional(config) {
    const D = config.hidden_size
    const { head } = config.encoder!
    const shapes: Shapes = new Map()
    if (!head) return shapes
    if (head.task !== 'tokens') {
      shapes.set('pre_classifier.weight', [D, D])
      shapes.set('pre_classifier.bias', [D])
    }
    shapes.set('classifier.weight', [head.labels.length, D])
    shapes.set('classifier.bias', [head.labels.length])
    return shapes
  },

  stored(tensor) {
    const bare = /^(embeddings|transformer)\./.test(tensor.name)
    return { ...tensor, name: bare ? `distilbert.${tensor.name}` : tensor.name }
  },
}
