// BERT on disk, all-MiniLM among its kind: post-norm blocks, token types, and most often a pooler.

import { headOf, modernName } from './encoder.ts'
import type { Family, ModelConfig, Shapes } from './family.ts'
import type { Fields } from './fields.ts'

/** The fields that BERT and RoBERTa have. */
export function bertConfig(fields: Fields, position_offset: number): ModelConfig {
  const { raw, size } = fields
  fields.only('hidden_act', 'gelu')
  fields.only('position_embedding_type', 'absolute')
  fields.only('is_decoder', false)
  const hidden_size = size('hidden_size')
  const num_attention_heads = size('num_attention_heads')
  const head_dim = hidden_size / num_attention_heads
  if (!Number.isSafeInteger(head_dim))
    fields.refuse(`${num_attention_heads} heads do not share hidden_size ${hidden_size} evenly`)
  const positions = size('max_position_embeddings', 512)
  if (positions <= position_offset)
    fields.refuse(`max_position_embeddings ${positions} leaves no room for a token`)
  return {
    model_type: String(raw.model_type),
    hidden_size,
    intermediate_size: size('intermediate_size'),
    num_hidden_layers: size('num_hidden_layers'),
    num_attention_heads,
    num_key_value_heads: num_attention_heads,
    head_dim,
    vocab_size: size('vocab_size'),
    max_position_embeddings: positions - position_offset,
    norm_eps: fields.positive('layer_norm_eps', raw.layer_norm_eps ?? 1e-12),
    tie_word_embeddings: false,
    encoder: { type_vocab_size: size('type_vocab_size', 2), position_offset, ...headOf(fields) },
  }
}

/** Embeddings and blocks under `prefix`. */
export function bertTensors(config: ModelConfig, prefix: string): Shapes {
  const D = config.hidden_size
  const F = config.intermediate_size
  const { type_vocab_size, position_offset } = config.encoder!
  const shapes: Shapes = new Map()
  const layer = (name: string, weight: readonly number[]) => {
    shapes.set(`${prefix}.${name}.weight`, weight)
    shapes.set(`${prefix}.${name}.bias`, [weight[0]!])
  }
  const positions = config.max_position_embeddings + position_offset
  shapes.set(`${prefix}.embeddings.word_embeddings.weight`, [config.vocab_size, D])
  shapes.set(`${prefix}.embeddings.position_embeddings.weight`, [positions, D])
  shapes.set(`${prefix}.embeddings.token_type_embeddings.weight`, [type_vocab_size, D])
  layer('embeddings.LayerNorm', [D])
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const at = `encoder.layer.${i}`
    for (const name of ['query', 'key', 'value']) layer(`${at}.attention.self.${name}`, [D, D])
    layer(`${at}.attention.output.dense`, [D, D])
    layer(`${at}.attention.output.LayerNorm`, [D])
    layer(`${at}.intermediate.dense`, [F, D])
    layer(`${at}.output.dense`, [D, F])
    layer(`${at}.output.LayerNorm`, [D])
  }
  return shapes
}

const pooler = ({ hidden_size: D }: ModelConfig): [string, number[]][] => [
  ['bert.pooler.dense.weight', [D, D]],
  ['bert.pooler.dense.bias', [D]],
]

export const bert: Family = {
  names: ['bert'],
  linear: ['query', 'key', 'value', 'dense'],
  config: (fields) => bertConfig(fields, 0),
  tensors: (config) => bertTensors(config, 'bert'),

  optional(config) {
    const shapes: Shapes = new Map(pooler(config))
    const labels = config.encoder?.head?.labels.length
    if (labels !== undefined) {
      shapes.set('classifier.weight', [labels, config.hidden_size])
      shapes.set('classifier.bias', [labels])
    }
    return shapes
  },

  stored(tensor) {
    const name = modernName(tensor.name)
    const bare = /^(embeddings|encoder|pooler)\./.test(name)
    return { ...tensor, name: bare ? `bert.${name}` : name }
  },
}
