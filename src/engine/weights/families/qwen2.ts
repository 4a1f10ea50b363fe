// Qwen 1.5, 2 and 2.5 on disk: biases on q, k and v, and none on o.

import type { Family } from './family.ts'
import {
  addBiases,
  decoderConfig,
  decoderGguf,
  decoderTensors,
  GGUF_BIASES,
  LINEAR,
  slidingLayers,
} from './rotary-decoder.ts'

export const qwen2: Family = {
  names: ['qwen2'],
  linear: LINEAR,

  config(fields) {
    const config = decoderConfig(fields, {
      max_position_embeddings: 32_768,
      num_key_value_heads: 32,
    })
    return { ...config, ...slidingLayers(fields, config.num_hidden_layers) }
  },

  tensors(config) {
    const shapes = decoderTensors(config)
    addBiases(shapes, config, ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'])
    return shapes
  },

  gguf: { ...decoderGguf, layers: { ...decoderGguf.layers, ...GGUF_BIASES } },
}
