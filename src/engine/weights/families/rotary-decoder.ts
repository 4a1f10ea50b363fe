// What llama, mistral and qwen have in common on disk: the fields of config.json, the tensors, llama.cpp's names.

import type { GgufNames, ModelConfig, Shapes } from './family.ts'
import type { Fields } from './fields.ts'
import { ropeOf } from './rope.ts'

/** The linear layers of a block with SwiGLU. */
export const LINEAR = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
] as const

/** What transformers takes where a field is missing. */
export interface Defaults {
  readonly max_position_embeddings: number
  readonly num_key_value_heads?: number
  readonly head_dim?: number
}

/** The fields that all of them have; each family adds its own. */
export function decoderConfig(fields: Fields, defaults: Defaults): ModelConfig {
  const { raw, size, flag } = fields
  fields.only('hidden_act', 'silu')
  const hidden_size = size('hidden_size')
  const num_attention_heads = size('num_attention_heads')
  // An explicit null is "as many as there are heads"; a missing field is the family's own default.
  const unsaid = raw.num_key_value_heads === null ? undefined : defaults.num_key_value_heads
  const num_key_value_heads = size('num_key_value_heads', unsaid ?? num_attention_heads)
  const head_dim = size('head_dim', defaults.head_dim ?? hidden_size / num_attention_heads)
  if (num_attention_heads % num_key_value_heads !== 0)
    fields.refuse(
      `${num_attention_heads} attention heads do not share ${num_key_value_heads} key-value heads evenly`,
    )
  if (head_dim % 2 !== 0) fields.refuse(`head_dim ${head_dim} is odd`)
  const rope = ropeOf(fields)
  const factors = rope.rope_scaling?.rope_type === 'factors' ? rope.rope_scaling.factors : undefined
  if (factors && factors.length !== head_dim / 2)
    fields.refuse(`${factors.length} factors of the scaled rope for heads of ${head_dim}`)
  return {
    model_type: String(raw.model_type),
    hidden_size,
    intermediate_size: size('intermediate_size'),
    num_hidden_layers: size('num_hidden_layers'),
    num_attention_heads,
    num_key_value_heads,
    head_dim,
    vocab_size: size('vocab_size'),
    max_position_embeddings: size('max_position_embeddings', defaults.max_position_embeddings),
    norm_eps: fields.positive('rms_norm_eps', raw.rms_norm_eps ?? 1e-6),
    ...rope,
    tie_word_embeddings: flag('tie_word_embeddings'),
  }
}

/** The matrices and norms that all of them have. */
export function decoderTensors(config: ModelConfig): Shapes {
  const D = config.hidden_size
  const F = config.intermediate_size
  const { Q, KV } = projectionSizes(config)
  const shapes: Shapes = new Map()
  shapes.set('model.embed_tokens.weight', [config.vocab_size, D])
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const at = `model.layers.${i}`
    shapes.set(`${at}.input_layernorm.weight`, [D])
    shapes.set(`${at}.self_attn.q_proj.weight`, [Q, D])
    shapes.set(`${at}.self_attn.k_proj.weight`, [KV, D])
    shapes.set(`${at}.self_attn.v_proj.weight`, [KV, D])
    shapes.set(`${at}.self_attn.o_proj.weight`, [D, Q])
    shapes.set(`${at}.post_attention_layernorm.weight`, [D])
    shapes.set(`${at}.mlp.gate_proj.weight`, [F, D])
    shapes.set(`${at}.mlp.up_proj.weight`, [F, D])
    shapes.set(`${at}.mlp.down_proj.weight`, [D, F])
  }
  shapes.set('model.norm.weight', [D])
  if (!config.tie_word_embeddings) shapes.set('lm_head.weight', [config.vocab_size, D])
  return shapes
}

/** Rows of the query projection, and of the key and the value projection. */
export const projectionSizes = ({
  num_attention_heads,
  num_key_value_heads,
  head_dim,
}: ModelConfig) => ({ Q: num_attention_heads * head_dim, KV: num_key_value_heads * head_dim })

/** Adds a bias to the projections that are named, in every layer. */
export function addBiases(shapes: Shapes, config: ModelConfig, projections: readonly string[]) {
  for (let i = 0; i < config.num_hidden_layers; i++)
    for (const projection of projections) {
      const at = `model.layers.${i}.${projection}`
      shapes.set(`${at}.bias`, [shapes.get(`${at}.weight`)![0]!])
    }
}

/**
 * The windows of qwen's layers: layer_types where it is there, else all from max_window_layers on.
 * Nothing slides unless use_sliding_window says so.
 */
export function slidingLayers(
  fields: Fields,
  layers: number,
): Pick<ModelConfig, 'sliding_windows'> {
  const { raw, size } = fields
  if (!fields.flag('use_sliding_window') || raw.sliding_window === null) return {}
  const window = size('sliding_window', 4096)
  const types = raw.layer_types ?? undefined
  if (types === undefined) {
    const first = typeof raw.max_window_layers === 'number' ? raw.max_window_layers : 28
    return {
      sliding_windows: Array.from({ length: layers }, (_, i) => (i < first ? null : window)),
    }
  }
  if (!Array.isArray(types) || types.length !== layers)
    return fields.refuse(`layer_types is no list of ${layers} types`)
  return {
    sliding_windows: types.map((type) => {
      if (type === 'full_attention') return null
      if (type === 'sliding_attention') return window
      return fields.refuse(`a layer of type ${JSON.stringify(type)} is not supported`)
    }),
  }
}

/** llama.cpp's names, and config.json as its metadata tell it. */
export const decoderGguf: GgufNames = {
  config(get) {
    const heads = get('attention.head_count')
    const width = get('embedding_length')
    const even = typeof width === 'number' && typeof heads === 'number' ? width / heads : undefined
    return {
      hidden_size: width,
      intermediate_size: get('feed_forward_length'),
      num_hidden_layers: get('block_count'),
      num_attention_heads: heads,
      num_key_value_heads: get('attention.head_count_kv') ?? heads,
      head_dim: get('attention.key_length') ?? even,
      max_position_embeddings: get('context_length'),
      rms_norm_eps: get('attention.layer_norm_rms_epsilon'),
      rope_theta: get('rope.freq_base'),
    }
  },
  names: {
    'token_embd.weight': 'model.embed_tokens.weight',
    'output_norm.weight': 'model.norm.weight',
    'output.weight': 'lm_head.weight',
  },
  layer: 'model.layers',
  layers: {
    'attn_norm.weight': 'input_layernorm.weight',
    'attn_q.weight': 'self_attn.q_proj.weight',
    'attn_k.weight': 'self_attn.k_proj.weight',
    'attn_v.weight': 'self_attn.v_proj.weight',
    'attn_output.weight': 'self_attn.o_proj.weight',
    'ffn_norm.weight': 'post_attention_layernorm.weight',
    'ffn_gate.weight': 'mlp.gate_proj.weight',
    'ffn_up.weight': 'mlp.up_proj.weight',
    'ffn_down.weight': 'mlp.down_proj.weight',
  },
}

/** Where llama.cpp keeps the biases of these projections. */
export const GGUF_BIASES: Readonly<Record<string, string>> = {
  'attn_q.bias': 'self_attn.q_proj.bias',
  'attn_k.bias': 'self_attn.k_proj.bias',
  'attn_v.bias': 'self_attn.v_proj.bias',
  'attn_output.bias': 'self_attn.o_proj.bias',
  'ffn_gate.bias': 'mlp.gate_proj.bias',
  'ffn_up.bias': 'mlp.up_proj.bias',
  'ffn_down.bias': 'mlp.down_proj.bias',
}
