// The models of a merge, opened: their configs, and their tensors under the names of one of them.

import { basename } from 'node:path'
import { type Adapter, readAdapter } from '../weights/adapter.ts'
import { type Checkpoint, openCheckpoint, readJson } from '../weights/checkpoint.ts'
import { familyOf } from '../weights/model-config.ts'
import { readSafetensorsFolder } from '../weights/safetensors.ts'
import type { StoredTensor } from '../weights/stored-tensor.ts'
import { keyOf, type ModelName } from './config.ts'

/** Where a model of a merge lies. */
export interface ModelFiles {
  /** A Hugging Face folder or a .gguf file. */
  readonly path: string
  /** The `adapter_model.safetensors` over it. */
  readonly adapter?: string
}

export interface OpenModel {
  readonly key: string
  readonly files: ModelFiles
  readonly checkpoint: Checkpoint
  readonly config: Readonly<Record<string, unknown>>
  /** As the files have them, under the names they have in the family. */
  readonly tensors: ReadonlyMap<string, StoredTensor>
  readonly adapter?: Adapter
}

/** Opens and checks one model, header by header; reads no weights but an adapter's. */
export async function openModel(name: ModelName, files: ModelFiles): Promise<OpenModel> {
  const checkpoint = await openCheckpoint(files.path)
  const raw =
    checkpoint.format === 'gguf'
      ? [...checkpoint.tensors.values()].map((tensor) => [tensor.name, tensor] as const)
      : [...(await readSafetensorsFolder(files.path)).values()].map(
          (tensor) => [fullName(tensor, checkpoint), tensor] as const,
        )
  const adapter = files.adapter === undefined ? undefined : await readAdapter(files.adapter)
  if (adapter?.config.use_dora)
    throw new Error(`${keyOf(name)}: a DoRA adapter cannot be merged yet`)
  return {
    key: keyOf(name),
    files,
    checkpoint,
    config: (await readJson(files.path, 'config.json').catch(() => undefined)) as Record<
      string,
      unknown
    >,
    tensors: new Map(raw),
    ...(adapter && { adapter }),
  }
}

/** An encoder's tensors lie with its class's prefix or without; the family's name joins them. */
const fullName = (tensor: StoredTensor, { config }: Checkpoint): string =>
  familyOf(config).stored?.(tensor)?.name ?? tensor.name

/** The folder whose config.json and tokenizer the result gets. */
export function asReference(model: OpenModel): OpenModel {
  if (model.checkpoint.format === 'huggingface') return model
  throw new Error(
    `${basename(model.files.path)}: a GGUF can be merged, but the base model (or the first) must be a Hugging Face folder`,
  )
}
