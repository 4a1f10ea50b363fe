// A model in a GGUF file, told in Hugging Face's words: config and tensor names, as its family knows them.

import { basename } from 'node:path'
import type { GgufNames } from './families/family.ts'
import { findFamily, ggufArchitectures } from './families/index.ts'
import { type Gguf, type GgufValue, readGguf } from './gguf.ts'
import { type ModelConfig, parseModelConfig, requiredTensors } from './model-config.ts'
import { readTensor, type StoredTensor } from './stored-tensor.ts'

/** The divisors of a scaled rope's frequencies, as llama.cpp keeps what llama 3 computes from its config. */
const ROPE_FACTORS = 'rope_freqs.weight'

/** Config, tensors and chat template of a `.gguf` file. */
export async function openGgufCheckpoint(file: string): Promise<{
  config: ModelConfig
  tensors: ReadonlyMap<string, StoredTensor>
  chat_template: string | undefined
}> {
  const gguf = await readGguf(file)
  const where = basename(file)
  const architecture = gguf.metadata.get('general.architecture')
  const names = findFamily(architecture)?.gguf
  if (!names)
    throw new Error(
      `${where}: architecture ${JSON.stringify(architecture)} is not supported, only ${ggufArchitectures.join(', ')}`,
    )
  const config = await readConfig(gguf, names, where)
  const template = gguf.metadata.get('tokenizer.chat_template')
  return {
    config,
    tensors: renameTensors(gguf, { config, names, where }),
    chat_template: typeof template === 'string' ? template : undefined,
  }
}

async function readConfig(gguf: Gguf, names: GgufNames, where: string): Promise<ModelConfig> {
  const { metadata, tensors } = gguf
  const architecture = metadata.get('general.architecture')
  const get = (key: string): GgufValue | undefined =>
    asWritten(metadata.get(`${architecture}.${key}`))
  const biased = (name: string): boolean => tensors.has(`blk.0.${name}.bias`)
  const config = parseModelConfig(
    {
      ...names.config(get),
      model_type: architecture,
      vocab_size: tensors.get('token_embd.weight')?.dims[0] ?? get('vocab_size'),
      tie_word_embeddings: !tensors.has('output.weight'),
      attention_bias: biased('attn_output'),
      mlp_bias: biased('ffn_down'),
      rope_scaling: await ropeScaling(gguf, get, where),
    },
    where,
  )
  const rotated = get('rope.dimension_count') ?? config.head_dim
  if (config.rope_theta !== undefined && rotated !== config.head_dim)
    throw new Error(
      `${where}: rope over ${rotated} of ${config.head_dim} dimensions is not supported`,
    )
  return config
}

async function ropeScaling(
  { tensors }: Gguf,
  get: (key: string) => GgufValue | undefined,
  where: string,
): Promise<Record<string, unknown> | undefined> {
  const type = get('rope.scaling.type') ?? 'none'
  const factors = tensors.get(ROPE_FACTORS)
  if (type !== 'none' && factors)
    throw new Error(`${where}: rope scaling of type ${type} beside ${ROPE_FACTORS}`)
  if (factors) return { rope_type: 'factors', factors: [...(await readTensor(factors))] }
  return type === 'none' ? undefined : { rope_type: type, factor: get('rope.scaling.factor') }
}

/** GGUF keeps 1e-5 as the float32 9.999999747e-6; config.json had the decimal. */
const asWritten = (value: GgufValue | undefined) =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value

function renameTensors(
  gguf: Gguf,
  { config, names, where }: { config: ModelConfig; names: GgufNames; where: string },
): ReadonlyMap<string, StoredTensor> {
  const required = requiredTensors(config)
  const renamed = new Map<string, StoredTensor>()
  for (const tensor of gguf.tensors.values()) {
    if (tensor.name === ROPE_FACTORS) continue
    const name = huggingFaceName(tensor.name, names)
    // An unknown tensor is a bias or an expert: without it the model computes wrongly.
    if (!name || !required.has(name))
      throw new Error(
        `${where}: tensor ${tensor.name} is not one that ${config.model_type} has here`,
      )
    const heads = names.interleaved && interleavedHeads(name, config)
    renamed.set(name, { ...tensor, name, ...(heads && { interleaved_heads: heads }) })
  }
  return renamed
}

const interleavedHeads = (name: string, config: ModelConfig): number | undefined =>
  /q_proj\.(weight|bias)$/.test(name)
    ? config.num_attention_heads
    : /k_proj\.(weight|bias)$/.test(name)
      ? config.num_key_value_heads
      : undefined

function huggingFaceName(name: string, { names, layer, layers }: GgufNames): string | undefined {
  const block = /^blk\.(\d+)\.(.+)$/.exec(name)
  if (!block) return names[name]
  const rest = layers[block[2]!]
  return rest && `${layer}.${block[1]}.${rest}`
}
