// A decoder's config.json in Hugging Face's words, and which tensors such a model must have.
// Refuses what would compute wrongly instead of reading over it.

/** config.json of a decoder, in Hugging Face's words. Fields of families to come are added as they are needed. */
export interface ModelConfig {
  readonly model_type: string
  readonly hidden_size: number
  readonly intermediate_size: number
  readonly num_hidden_layers: number
  readonly num_attention_heads: number
  readonly num_key_value_heads: number
  readonly head_dim: number
  readonly vocab_size: number
  readonly max_position_embeddings: number
  readonly rms_norm_eps: number
  readonly rope_theta: number
  readonly tie_word_embeddings: boolean
}

const MODEL_TYPES = ['llama']

/** Checks a parsed config.json; `where` opens every message. */
export function parseModelConfig(json: unknown, where: string): ModelConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new Error(`${where}: not a JSON object`)
  const raw = json as Record<string, unknown>
  const model_type = raw.model_type
  if (typeof model_type !== 'string' || !MODEL_TYPES.includes(model_type))
    throw new Error(
      `${where}: model_type ${JSON.stringify(model_type)} is not supported, only ${MODEL_TYPES.join(', ')}`,
    )
  refuseUnsupported(raw, where)

  const size = (key: string, fallback?: number): number => {
    const value = raw[key] ?? fallback
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
      throw new Error(`${where}: ${key} is ${JSON.stringify(value)}, expected a positive integer`)
    return value
  }
  const real = (key: string, value: unknown): number => {
    if (typeof value !== 'number' || !(value > 0) || !Number.isFinite(value))
      throw new Error(`${where}: ${key} is ${JSON.stringify(value)}, expected a positive number`)
    return value
  }

  const hidden_size = size('hidden_size')
  const num_attention_heads = size('num_attention_heads')
  const num_key_value_heads = size('num_key_value_heads', num_attention_heads)
  const head_dim = size('head_dim', hidden_size / num_attention_heads)
  if (num_attention_heads % num_key_value_heads !== 0)
    throw new Error(
      `${where}: ${num_attention_heads} attention heads do not share ${num_key_value_heads} key-value heads evenly`,
    )
  if (head_dim % 2 !== 0) throw new Error(`${where}: head_dim ${head_dim} is odd`)
  return {
    model_type,
    hidden_size,
    intermediate_size: size('intermediate_size'),
    num_hidden_layers: size('num_hidden_layers'),
    num_attention_heads,
    num_key_value_heads,
    head_dim,
    vocab_size: size('vocab_size'),
    max_position_embeddings: size('max_position_embeddings', 2048),
    rms_norm_eps: real('rms_norm_eps', raw.rms_norm_eps ?? 1e-6),
    rope_theta: real('rope_theta', raw.rope_theta ?? rope(raw)?.rope_theta ?? 10_000),
    tie_word_embeddings: raw.tie_word_embeddings === true,
  }
}

/** Name and shape of every tensor a model of this config computes with. */
export function requiredTensors(config: ModelConfig): Map<string, readonly number[]> {
  const D = config.hidden_size
  const F = config.intermediate_size
  const Q = config.num_attention_heads * config.head_dim
  const KV = config.num_key_value_heads * config.head_dim
  const shapes = new Map<string, readonly number[]>()
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

/** transformers 5 writes rope_parameters, older files rope_scaling beside rope_theta. */
const rope = (raw: Record<string, unknown>) =>
  (raw.rope_parameters ?? raw.rope_scaling ?? undefined) as Record<string, unknown> | undefined

function refuseUnsupported(raw: Record<string, unknown>, where: string) {
  const scaling = rope(raw)
  const type = scaling?.rope_type ?? scaling?.type ?? 'default'
  if (type !== 'default') throw new Error(`${where}: rope scaling of type ${type} is not supported`)
  if ((raw.hidden_act ?? 'silu') !== 'silu')
    throw new Error(`${where}: hidden_act ${raw.hidden_act} is not supported, only silu`)
  for (const key of ['attention_bias', 'mlp_bias'])
    if (raw[key] === true) throw new Error(`${where}: ${key} is not supported`)
  if (raw.quantization_config)
    throw new Error(
      `${where}: quantised safetensors are not supported; use the GGUF or the plain file`,
    )
}
