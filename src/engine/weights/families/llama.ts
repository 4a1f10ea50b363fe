// Llama 2 and 3, TinyLlama, SmolLM2 on disk.

import type { Family } from './family.ts'
import {
  addBiases,
  decoderConfig,
  decoderGguf,
  decoderTensors,
  GGUF_BIASES,
  LINEAR,
} from './rotary-decoder.ts'

const ATTENTION = ['q_proj', 'k_proj', 'v_proj', 'o_proj'].map((name) => `self_attn.${name}`)
const MLP = ['gate_proj', 'up_proj', 'down_proj'].map((name) => `mlp.${name}`)

export const llama: Family = {
  names: ['llama'],
  linear: LINEAR,

  config: (fields) => ({
    ...decoderConfig(fields, { max_position_embeddings: 2048 }),
    ...(fields.flag('attention_bias') && { attention_bias: true }),
    ...(fields.flag('mlp_bias') && { mlp_bias: true }),
  }),

  tensors(config) {
    const shapes = decoderTensors(config)
    if (config.attention_bias) addBiases(shapes, config, ATTENTION)
    if (config.mlp_bias) addBiases(shapes, config, MLP)
    return shapes
  },

  gguf: {
    ...decoderGguf,
    layers: { ...decoderGguf.layers, ...GGUF_BIASES },
    interleaved: true,
  },
}
