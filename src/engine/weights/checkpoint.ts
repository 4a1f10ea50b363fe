// A base model on disk: its config, its tensors under Hugging Face names, where its tokenizer lies.

import { existsSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { openGgufCheckpoint } from './gguf-checkpoint.ts'
import type { MappedInt8 } from './int8.ts'
import {
  familyOf,
  type ModelConfig,
  optionalTensors,
  parseModelConfig,
  requiredTensors,
} from './model-config.ts'
import { readSafetensorsFolder } from './safetensors.ts'
import type { StoredTensor } from './stored-tensor.ts'

export type { ModelConfig } from './model-config.ts'
export type { StoredDtype, StoredTensor } from './stored-tensor.ts'

export interface Checkpoint {
  /** The model's id: its folder's name, or the .gguf file's name without its ending. */
  readonly id: string
  readonly path: string
  readonly format: 'huggingface' | 'gguf'
  readonly config: ModelConfig
  /** Under Hugging Face names: `model.layers.0.self_attn.q_proj.weight`. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /** The model's own Jinja chat template, if it has one. */
  readonly chat_template: string | undefined
}

/** All tensors of a checkpoint as float32, ready to be mapped: external data of an ONNX graph points here. */
export interface MappedWeights {
  /** The checkpoint's id and a hash of its files: what is made of these weights is kept under this name. */
  readonly id: string
  readonly config: ModelConfig
  readonly tensors: ReadonlyMap<string, MappedTensor>
  /** Where it is there, the products that it has are computed with it instead of with `tensors`. */
  readonly int8?: MappedInt8
  /** Where true, products with frozen projections are computed in float16, and the loss of a step is scaled. */
  readonly half?: boolean
}

export interface MappedTensor {
  readonly name: string
  readonly dims: readonly number[]
  /** Absolute path. */
  readonly file: string
  readonly offset: number
  readonly bytes: number
}

/** Opens a Hugging Face folder or a `.gguf` file; every tensor the model needs is there and has its shape. */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const absolute = resolve(path)
  if (!existsSync(absolute)) throw new Error(`${basename(absolute)}: there is no such model`)
  const folder = statSync(absolute).isDirectory()
  if (!folder && !absolute.endsWith('.gguf'))
    throw new Error(`${basename(absolute)}: a model is a Hugging Face folder or a .gguf file`)
  const checkpoint: Checkpoint = folder
    ? await openFolder(absolute)
    : {
        id: basename(absolute, '.gguf'),
        path: absolute,
        format: 'gguf',
        ...(await openGgufCheckpoint(absolute)),
      }
  checkTensors(checkpoint)
  return checkpoint
}

async function openFolder(path: string): Promise<Checkpoint> {
  const id = basename(path)
  const json = await readJson(path, 'config.json')
  if (json === undefined) throw new Error(`${id}: config.json is missing`)
  const config = parseModelConfig(json, `${id}: config.json`)
  return {
    id,
    path,
    format: 'huggingface',
    config,
    tensors: underFamilyNames(await readSafetensorsFolder(path), config),
    chat_template: await readChatTemplate(path),
  }
}

function underFamilyNames(
  tensors: ReadonlyMap<string, StoredTensor>,
  config: ModelConfig,
): ReadonlyMap<string, StoredTensor> {
  const { stored } = familyOf(config)
  if (!stored) return tensors
  const named = [...tensors.values()].flatMap((tensor) => stored(tensor) ?? [])
  return new Map(named.map((tensor) => [tensor.name, tensor]))
}

/** A JSON file of a model's folder, undefined when it is not there. */
export async function readJson(folder: string, name: string): Promise<unknown> {
  const file = join(folder, name)
  if (!existsSync(file)) return undefined
  try {
    return JSON.parse(await readFile(file, 'utf8'))
  } catch (cause) {
    throw new Error(`${basename(folder)}: ${name} is not JSON`, { cause })
  }
}

/** chat_template.jinja goes before tokenizer_config.json, as in transformers; of several the one named default. */
async function readChatTemplate(folder: string): Promise<string | undefined> {
  const file = join(folder, 'chat_template.jinja')
  if (existsSync(file)) return readFile(file, 'utf8')
  const config = (await readJson(folder, 'tokenizer_config.json')) as
    | { chat_template?: unknown }
    | undefined
  const template = config?.chat_template
  if (typeof template === 'string') return template
  if (!Array.isArray(template)) return undefined
  const named = template as { name?: unknown; template?: unknown }[]
  const chosen = named.find(({ name }) => name === 'default')?.template
  return typeof chosen === 'string' ? chosen : undefined
}

function checkTensors({ id, config, tensors }: Checkpoint) {
  const optional = optionalTensors(config)
  for (const [name, dims] of [...requiredTensors(config), ...optional]) {
    const tensor = tensors.get(name)
    if (!tensor && optional.has(name)) continue
    if (!tensor) throw new Error(`${id}: tensor ${name} is missing`)
    if (String(tensor.dims) !== String(dims))
      throw new Error(
        `${basename(tensor.file)}: tensor ${name} has shape [${tensor.dims}], expected [${dims}]`,
      )
  }
}
