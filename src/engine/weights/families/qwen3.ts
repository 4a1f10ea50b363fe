// Qwen 3 (dense) on disk: norms over each query and key head, and heads of a size of their own.

import type { Family } from './family.ts'
import {
  addBiases,
  decoderConfig,
  decoderGguf,
  decoderTensors,
  LINEAR,
  slidingLayers,
} from './rotary-decoder.ts'

export const qwen3: Family = {
  names: ['qwen3'],
  linear: LINEAR,

  config(fields) {
    const config = decoderConfig(fields, {
      max_position_embeddings: 32_768,
      num_key_value_heads: 32,
      head_dim: 128,
    })
    return {
      ...config,
      ...slidingLayers(fields, config.num_hidden_layers),
      ...(fields.flag('attention_bias') && { attention_bias: true }),
    }
  },

  tensors(config) {
    const shapes = decoderTensors(config)
    for (let i = 0; i < config.num_hidden_layers; i++)
      for (const norm of ['q_norm', 'k_norm'])
        shapes.set(`model.layers.${i}.self_attn.${norm}.weight`, [config.head_dim])
    if (config.attention_bias)
      addBiases(
        shapes,
        config,
        ['q_proj', 'k_proj', 'v_proj', 'o_proj'].map((name) => `self_attn.${name}`),
      )
    return shapes
  },

  gguf: {
    ...decoderGguf,
    layers: {
      ...decoderGguf.layers,
      'attn_q_norm.weight': 'self_attn.q_norm.weight',
      'attn_k_norm.weight': 'self_attn.k_norm.weight',
    },
  },
}
