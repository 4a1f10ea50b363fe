// Mistral on disk: a llama whose layers see a window of tokens. In a GGUF it calls itself llama.

import type { Family } from './family.ts'
import { decoderConfig, decoderTensors, LINEAR } from './rotary-decoder.ts'

export const mistral: Family = {
  names: ['mistral'],
  linear: LINEAR,

  config(fields) {
    const defaults = { max_position_embeddings: 131_072, num_key_value_heads: 8 }
    const config = decoderConfig(fields, defaults)
    if (fields.raw.sliding_window === null) return config
    const window = fields.size('sliding_window', 4096)
    return {
      ...config,
      sliding_windows: new Array<number>(config.num_hidden_layers).fill(window),
    }
  },

  tensors: decoderTensors,
}
