// A Hugging Face folder: config, tokenizer, template, and the weights in shards.

import { createReadStream, existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { elements } from '../tensor.ts'
import { readGgufVocabulary } from '../tokenizer/gguf-vocabulary.ts'
import { readJson } from '../weights/checkpoint.ts'
import { FOLDER_TEXTS } from '../weights/folder-files.ts'
import { bytesOf } from '../weights/quantise.ts'
import { layoutSafetensors } from '../weights/safetensors.ts'
import { type ExportFile, jsonFile, textFile } from './file.ts'
import type { ExportModel, ExportTensor } from './model.ts'
import { pieces, turn } from './tensor-bytes.ts'

export type FolderDtype = 'F32' | 'F16' | 'BF16'

const TORCH = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const

/** All files of the folder; a shard holds `shard_bytes` of weights at most, or one tensor. */
export async function folderFiles(
  model: ExportModel,
  { dtype, shard_bytes }: { dtype: FolderDtype; shard_bytes: number },
): Promise<ExportFile[]> {
  return [...(await textFiles(model, dtype)), ...weightFiles(model, dtype, shard_bytes)]
}

/** Config and tokenizer. */
export async function textFiles(model: ExportModel, dtype: FolderDtype): Promise<ExportFile[]> {
  const { base, changes } = model
  const kind = { dtype: TORCH[dtype], torch_dtype: TORCH[dtype] }
  if (base.format === 'gguf') return fromGguf(model, kind)
  const config = (await readJson(base.path, 'config.json')) as Record<string, unknown>
  const beside = FOLDER_TEXTS.filter((name) => existsSync(join(base.path, name))).map((name) =>
    copied(base.path, name),
  )
  return [jsonFile('config.json', { ...config, ...kind, ...changes }), ...beside]
}

function copied(folder: string, path: string): ExportFile {
  const file = join(folder, path)
  return { path, bytes: statSync(file).size, chunks: () => createReadStream(file) }
}

const CLASSES: Readonly<Record<string, string>> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
}

async function fromGguf(
  { base, config, chat_template, changes }: ExportModel,
  kind: Record<string, string>,
): Promise<ExportFile[]> {
  const name = CLASSES[config.model_type]
  if (!name)
    throw new Error(`A Hugging Face folder of a ${config.model_type} is not made from a GGUF.`)
  const vocabulary = await readGgufVocabulary(base.path)
  const { json, bos_token, eos_token, eos_token_ids } = vocabulary
  const idOf = (token: string | undefined) =>
    token === undefined ? undefined : json.model.vocab[token]
  const eos = [...new Set([idOf(eos_token), ...eos_token_ids])].filter((id) => id !== undefined)
  const tokens = {
    bos_token_id: idOf(bos_token) ?? null,
    eos_token_id: eos.length > 1 ? eos : (eos[0] ?? null),
  }
  return [
    jsonFile('config.json', {
      architectures: [name],
      hidden_act: 'silu',
      ...wordsOf(config),
      ...kind,
      ...tokens,
      ...changes,
    }),
    jsonFile('generation_config.json', tokens),
    jsonFile('tokenizer.json', { version: '1.0', truncation: null, padding: null, ...json }),
    jsonFile('tokenizer_config.json', {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: bos_token ?? null,
      eos_token: eos_token ?? null,
      clean_up_tokenization_spaces: false,
      ...(chat_template !== undefined && { chat_template }),
    }),
    ...(chat_template === undefined ? [] : [textFile('chat_template.jinja', chat_template)]),
  ]
}

function wordsOf(config: ExportModel['config']): Record<string, unknown> {
  const { norm_eps, sliding_windows: _, encoder: __, ...words } = config
  if (words.rope_scaling?.rope_type === 'factors')
    throw new Error('The factors of this scaled rope have no words in config.json: export a gguf.')
  return { ...words, rms_norm_eps: norm_eps }
}

function weightFiles(model: ExportModel, dtype: FolderDtype, limit: number): ExportFile[] {
  const nameOf = ({ name }: ExportTensor) =>
    model.bare && name.startsWith(model.bare) ? name.slice(model.bare.length) : name
  const shards = cut(model.tensors, dtype, limit)
  if (shards.length === 1)
    return [shardFile('model.safetensors', { tensors: shards[0]!, dtype, nameOf })]
  const number = (n: number) => String(n).padStart(5, '0')
  const fileOf = (i: number) => `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
  const weight_map = Object.fromEntries(
    shards.flatMap((shard, i) => shard.map((tensor) => [nameOf(tensor), fileOf(i)])),
  )
  const total_size = model.tensors.reduce(
    (sum, { dims }) => sum + bytesOf(dtype, elements(dims)),
    0,
  )
  return [
    jsonFile('model.safetensors.index.json', { metadata: { total_size }, weight_map }),
    ...shards.map((tensors, i) => shardFile(fileOf(i), { tensors, dtype, nameOf })),
  ]
}

/** In the tensors' order, each shard as full as it gets. */
function cut(tensors: readonly ExportTensor[], dtype: FolderDtype, limit: number) {
  const shards: ExportTensor[][] = [[]]
  let room = limit
  for (const tensor of tensors) {
    const bytes = bytesOf(dtype, elements(tensor.dims))
    if (bytes > room && shards.at(-1)!.length > 0) {
      shards.push([])
      room = limit
    }
    shards.at(-1)!.push(tensor)
    room -= bytes
  }
  return shards
}

interface Shard {
  tensors: readonly ExportTensor[]
  dtype: FolderDtype
  nameOf: (tensor: ExportTensor) => string
}

function shardFile(path: string, { tensors, dtype, nameOf }: Shard): ExportFile {
  const stored = tensors.map((tensor) => ({
    name: nameOf(tensor),
    dims: tensor.transposed ? [...tensor.dims].reverse() : tensor.dims,
    dtype,
  }))
  const { header, size } = layoutSafetensors(stored, { format: 'pt' }, 1)
  return {
    path,
    bytes: header.length + size,
    async *chunks() {
      yield header
      for (const { dims, transposed, read } of tensors) {
        const values = await read()
        yield* pieces(dtype, transposed ? turn(values, dims[0]!, dims[1]!) : values)
      }
    },
  }
}
