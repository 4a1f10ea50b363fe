// GPT-2 on disk: learned positions, one projection for q, k and v, linear weights as Conv1D keeps them, [in, out].

import type { Family, Shapes } from './family.ts'

const CONV1D = /\.(c_attn|c_proj|c_fc)\.weight$/

export const gpt2: Family = {
  names: ['gpt2'],
  linear: ['c_attn', 'c_proj', 'c_fc'],
  fan_in_fan_out: true,

  config(fields) {
    const { raw, size } = fields
    fields.only('activation_function', 'gelu_new')
    fields.only('scale_attn_weights', true)
    fields.only('scale_attn_by_inverse_layer_idx', false)
    fields.only('add_cross_attention', false)
    const hidden_size = size('n_embd')
    const num_attention_heads = size('n_head')
    const head_dim = hidden_size / num_attention_heads
    if (!Number.isSafeInteger(head_dim))
      fields.refuse(`${num_attention_heads} heads do not share n_embd ${hidden_size} evenly`)
    return {
      model_type: 'gpt2',
      hidden_size,
      intermediate_size: size('n_inner', 4 * hidden_size),
      num_hidden_layers: size('n_layer'),
      num_attention_heads,
      num_key_value_heads: num_attention_heads,
      head_dim,
      vocab_size: size('vocab_size'),
      max_position_embeddings: size('n_positions', 1024),
      norm_eps: fields.positive('layer_norm_epsilon', raw.layer_norm_epsilon ?? 1e-5),
      tie_word_embeddings: fields.flag('tie_word_embeddings', true),
    }
  },

  tensors(config) {
    const D = config.hidden_size
    const F = config.intermediate_size
    const shapes: Shapes = new Map()
    const layer = (name: string, weight: readonly number[]) => {
      shapes.set(`${name}.weight`, weight)
      shapes.set(`${name}.bias`, [weight[0]!])
    }
    shapes.set('transformer.wte.weight', [config.vocab_size, D])
    shapes.set('transformer.wpe.weight', [config.max_position_embeddings, D])
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const at = `transformer.h.${i}`
      layer(`${at}.ln_1`, [D])
      layer(`${at}.attn.c_attn`, [3 * D, D])
      layer(`${at}.attn.c_proj`, [D, D])
      layer(`${at}.ln_2`, [D])
      layer(`${at}.mlp.c_fc`, [F, D])
      layer(`${at}.mlp.c_proj`, [D, F])
    }
    layer('transformer.ln_f', [D])
    if (!config.tie_word_embeddings) shapes.set('lm_head.weight', [config.vocab_size, D])
    return shapes
  },

  // The first files on the Hub are of the model without its head: names lack `transformer.`, masks lie among them.
  stored(tensor) {
    if (/\.attn\.(masked_)?bias$/.test(tensor.name)) return undefined
    const bare = /^(wte|wpe|h\.\d+|ln_f)\./.test(tensor.name)
    const name = bare ? `transformer.${tensor.name}` : tensor.name
    if (!CONV1D.test(name)) return { ...tensor, name }
    return { ...tensor, name, dims: [...tensor.dims].reverse(), transposed: true }
  },

  gguf: {
    config: (get) => ({
      n_embd: get('embedding_length'),
      n_inner: get('feed_forward_length'),
      n_layer: get('block_count'),
      n_head: get('attention.head_count'),
      n_positions: get('context_length'),
      layer_norm_epsilon: get('attention.layer_norm_epsilon'),
    }),
    names: {
      'token_embd.weight': 'transformer.wte.weight',
      'position_embd.weight': 'transformer.wpe.weight',
      'output_norm.weight': 'transformer.ln_f.weight',
      'output_norm.bias': 'transformer.ln_f.bias',
      'output.weight': 'lm_head.weight',
    },
    layer: 'transformer.h',
    layers: {
      'attn_norm.weight': 'ln_1.weight',
      'attn_norm.bias': 'ln_1.bias',
      'attn_qkv.weight': 'attn.c_attn.weight',
      'attn_qkv.bias': 'attn.c_attn.bias',
      'attn_output.weight': 'attn.c_proj.weight',
      'attn_output.bias': 'attn.c_proj.bias',
      'ffn_norm.weight': 'ln_2.weight',
      'ffn_norm.bias': 'ln_2.bias',
      'ffn_up.weight': 'mlp.c_fc.weight',
      'ffn_up.bias': 'mlp.c_fc.bias',
      'ffn_down.weight': 'mlp.c_proj.weight',
      'ffn_down.bias': 'mlp.c_proj.bias',
    },
  },
}
