// A llama in a GGUF file, told in Hugging Face's words: config and tensor names.

import { basename } from 'node:path'
import { type Gguf, type GgufValue, readGguf } from './gguf.ts'
import { type ModelConfig, parseModelConfig } from './model-config.ts'
import type { StoredTensor } from './stored-tensor.ts'

const LAYER_NAMES: Readonly<Record<string, string>> = {
  'attn_norm.weight': 'input_layernorm.weight',
  'attn_q.weight': 'self_attn.q_proj.weight',
  'attn_k.weight': 'self_attn.k_proj.weight',
  'attn_v.weight': 'self_attn.v_proj.weight',
  'attn_output.weight': 'self_attn.o_proj.weight',
  'ffn_norm.weight': 'post_attention_layernorm.weight',
  'ffn_gate.weight': 'mlp.gate_proj.weight',
  'ffn_up.weight': 'mlp.up_proj.weight',
  'ffn_down.weight': 'mlp.down_proj.weight',
}
const NAMES: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}

/** Config, tensors and chat template of a `.gguf` file. */
export async function openGgufCheckpoint(file: string): Promise<{
  config: ModelConfig
  tensors: ReadonlyMap<string, StoredTensor>
  chat_template: string | undefined
}> {
  const gguf = await readGguf(file)
  const config = readConfig(gguf, basename(file))
  const template = gguf.metadata.get('tokenizer.chat_template')
  return {
    config,
    tensors: renameTensors(gguf, config, basename(file)),
    chat_template: typeof template === 'string' ? template : undefined,
  }
}

function readConfig({ metadata, tensors }: Gguf, where: string): ModelConfig {
  const architecture = metadata.get('general.architecture')
  const get = (key: string): GgufValue | undefined => metadata.get(`${architecture}.${key}`)
  const scaling = get('rope.scaling.type')
  const heads = get('attention.head_count')
  const width = get('embedding_length')
  const head_dim =
    get('attention.key_length') ??
    (typeof width === 'number' && typeof heads === 'number' ? width / heads : undefined)
  const config = parseModelConfig(
    {
      model_type: architecture,
      hidden_size: width,
      intermediate_size: get('feed_forward_length'),
      num_hidden_layers: get('block_count'),
      num_attention_heads: heads,
      num_key_value_heads: get('attention.head_count_kv') ?? heads,
      head_dim,
      vocab_size: tensors.get('token_embd.weight')?.dims[0] ?? get('vocab_size'),
      max_position_embeddings: get('context_length'),
      rms_norm_eps: asWritten(get('attention.layer_norm_rms_epsilon')),
      rope_theta: asWritten(get('rope.freq_base')),
      tie_word_embeddings: !tensors.has('output.weight'),
      ...(typeof scaling === 'string' && scaling !== 'none'
        ? { rope_scaling: { rope_type: scaling } }
        : {}),
    },
    where,
  )
  const rotated = get('rope.dimension_count') ?? config.head_dim
  if (rotated !== config.head_dim)
    throw new Error(
      `${where}: rope over ${rotated} of ${config.head_dim} dimensions is not supported`,
    )
  return config
}

/** GGUF keeps 1e-5 as the float32 9.999999747e-6; config.json had the decimal. */
const asWritten = (value: GgufValue | undefined) =>
  typeof value === 'number' ? Number(value.toPrecision(7)) : value

function renameTensors(
  gguf: Gguf,
  config: ModelConfig,
  where: string,
): ReadonlyMap<string, StoredTensor> {
  const renamed = new Map<string, StoredTensor>()
  for (const tensor of gguf.tensors.values()) {
    const name = huggingFaceName(tensor.name)
    // An unknown tensor is a bias, a scaled rope or an expert: without it the model computes wrongly.
    if (!name) throw new Error(`${where}: tensor ${tensor.name} is not one a llama has here`)
    const heads = name.endsWith('q_proj.weight')
      ? config.num_attention_heads
      : name.endsWith('k_proj.weight')
        ? config.num_key_value_heads
        : undefined
    renamed.set(name, { ...tensor, name, ...(heads ? { interleaved_heads: heads } : {}) })
  }
  return renamed
}

function huggingFaceName(name: string): string | undefined {
  const layer = /^blk\.(\d+)\.(.+)$/.exec(name)
  if (!layer) return NAMES[name]
  const rest = LAYER_NAMES[layer[2]!]
  return rest && `model.layers.${layer[1]}.${rest}`
}
