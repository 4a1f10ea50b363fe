// The models of a merge, opened: their configs, and their tensors under the names of one of them.

import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { textFiles } from '../export/folder.ts'
import { openExport } from '../export/model.ts'
import { type Adapter, readAdapter } from '../weights/adapter.ts'
import { type Checkpoint, openCheckpoint, readJson } from '../weights/checkpoint.ts'
import { familyOf, parseModelConfig } from '../weights/model-config.ts'
import { readSafetensorsFolder, readSafetensorsHeader } from '../weights/safetensors.ts'
import type { StoredTensor } from '../weights/stored-tensor.ts'
import { configOf, useOf } from '../weights/tuned-encoder.ts'
import { keyOf, type ModelName } from './config.ts'

/** Where a model of a merge lies. */
export interface ModelFiles {
  /** A Hugging Face folder or a .gguf file. */
  readonly path: string
  /** What was tuned of it: the `adapter_model.safetensors` over it, or all of its weights under that name. */
  readonly adapter?: string
}

export interface OpenModel {
  readonly key: string
  readonly files: ModelFiles
  readonly checkpoint: Checkpoint
  /** As config.json says it; of a GGUF, as it would. */
  readonly config: Readonly<Record<string, unknown>>
  /** Why there is no config, where there is none. */
  readonly wordless?: string
  /** Files that a folder of this model has besides its weights and config.json, where they are not copied. */
  readonly texts?: ReadonlyMap<string, Uint8Array>
  /** As the files have them, under the names they have in the family. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  readonly adapter?: Adapter
}

/** Opens and checks one model, header by header; reads no weights but an adapter's. */
export async function openModel(name: ModelName, files: ModelFiles): Promise<OpenModel> {
  const checkpoint = await openCheckpoint(files.path)
  const base = {
    key: keyOf(name),
    files,
    checkpoint,
    ...(checkpoint.format === 'gguf' ? await fromGguf(checkpoint) : await fromFolder(checkpoint)),
  }
  return files.adapter === undefined ? base : withTuned(base, files.adapter)
}

async function fromFolder(checkpoint: Checkpoint) {
  const { path } = checkpoint
  return {
    config: (await readJson(path, 'config.json')) as Record<string, unknown>,
    tensors: named([...(await readSafetensorsFolder(path)).values()], checkpoint.config),
  }
}

/** The words that an export of it would have; a family whose words nobody knows can be merged into another. */
async function fromGguf({ path, tensors }: Checkpoint) {
  const own = new Map([...tensors.values()].map((tensor) => [tensor.name, tensor]))
  const texts = new Map<string, Uint8Array>()
  try {
    for (const file of await textFiles(await openExport({ base: path }), 'F32'))
      texts.set(file.path, await buffer(Readable.from(file.chunks())))
  } catch (error) {
    return { config: {}, tensors: own, wordless: (error as Error).message }
  }
  const config = JSON.parse(Buffer.from(texts.get('config.json')!).toString())
  texts.delete('config.json')
  return { config: config as Record<string, unknown>, tensors: own, texts }
}

/** Under the family's names: an encoder's tensors lie with its class's prefix or without. */
const named = (tensors: readonly StoredTensor[], config: Checkpoint['config']) =>
  new Map(tensors.map((tensor) => [familyOf(config).stored?.(tensor)?.name ?? tensor.name, tensor]))

/** The model with its adapter, or with all of its weights as they were trained. */
async function withTuned(base: OpenModel, file: string): Promise<OpenModel> {
  const json = JSON.parse(await readFile(join(dirname(file), 'adapter_config.json'), 'utf8'))
  const { tensors } = await readSafetensorsHeader(file)
  if (json?.peft_type === undefined) {
    const config = parseModelConfig(json, `${base.key}: config.json`)
    const checkpoint = { ...base.checkpoint, config }
    return {
      ...base,
      checkpoint,
      config: json,
      tensors: new Map([...base.tensors, ...named([...tensors.values()], config)]),
    }
  }
  const adapter = await readAdapter(file)
  // What was trained whole goes in the base's place, or beside it: a head.
  const names = new Map([...base.tensors.keys()].map((name) => [bareName(name), name]))
  const saved = [...(adapter.saved?.keys() ?? [])].map((name) => {
    const own = names.get(bareName(name)) ?? name
    const tensor = tensors.get(`base_model.model.${name}`)!
    return [own, { ...tensor, name: base.tensors.get(own)?.name ?? name }] as const
  })
  const { config } = base.checkpoint
  const isClassifier = config.encoder && saved.some(([name]) => !base.tensors.has(name))
  return {
    ...base,
    adapter,
    tensors: new Map([...base.tensors, ...saved]),
    config: { ...base.config, ...(isClassifier && configOf(useOf(adapter), config)) },
  }
}

/** A module's or tensor's name without the prefix of an encoder's class. */
export const bareName = (name: string): string => name.replace(/^(bert|roberta|distilbert)\./, '')

/** The model whose config.json and tokenizer the result gets. */
export function asReference(model: OpenModel): OpenModel {
  if (model.wordless === undefined) return model
  throw new Error(
    `${model.key}: the base model (or the first) must be a Hugging Face folder. ${model.wordless}`,
  )
}
