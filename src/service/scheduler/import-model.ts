// A folder of files from outside becomes a model of a project: looked at in a thread, stored, registered in one step.
// Knows no lease: who may do it, and what else is written with it, is the caller's.

import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  type ImportEvent,
  type ImportKind,
  type ImportRequest,
} from '../../engine/import/request.ts'
import { spawn } from '../../engine/runtime/thread.ts'
import { invalidRequest } from '../../errors.ts'
import { organizationSlug } from '../db/fine-tuning-sweeps.ts'
import { endImport, type NewImport } from '../db/imports.ts'
import { insertModel, insertModelFiles } from '../db/models.ts'
import type { PoolClient } from '../db/pool.ts'
import { insertParents } from '../db/provenance.ts'
import { randomLetters } from '../ids.ts'
import type { Unpacked } from '../imports/unpack.ts'
import type { ResolvedModel } from '../models/model.ts'
import { baseOfTunedName, tunedModelName } from '../models/names.ts'
import type { ModelRegistry } from '../models/registry.ts'
import { fileName } from '../models/weights.ts'
import type { DiskQuota } from '../storage/disk-quota.ts'
import { keepObjects, type Stores } from '../storage/objects.ts'
import type { ModelFolders } from './model-folders.ts'
import { stageFiles } from './stage-files.ts'

export interface ImportModelDeps {
  stores: Stores
  models: Pick<ModelRegistry, 'resolveRoot'>
  folders: ModelFolders
  quota: Pick<DiskQuota, 'admit'>
  /** What a message says of files, without the folders of this machine. */
  told: (message: string) => string
  /** Makes the new model resident before it is announced, so that it answers at once. */
  warm?: ((model: ResolvedModel) => Promise<void>) | undefined
}

/** What a folder was found to hold. */
export interface Looked {
  readonly kind: ImportKind
  readonly tensors: number
  readonly parameters: number
  readonly files: readonly string[]
  /** What an adapter is for. */
  readonly base?: { readonly id: string; readonly path: string }
}

const WORKER = new URL('../../engine/import/worker.ts', import.meta.url)
const FULL = 'The model cannot be stored: there is no more room for its files on the disk'

/** Looks at all of it; throws a 400 that says what is wrong. */
export async function lookAt(
  { models, told }: Pick<ImportModelDeps, 'models' | 'told'>,
  {
    project_id,
    folder,
    base_model,
  }: { project_id: string; folder: string; base_model: string | null },
  signal?: AbortSignal,
): Promise<Looked> {
  const base = await findBase(models, { project_id, folder, base_model })
  const files = await readdir(folder)
  const gguf = files.find((name) => name.endsWith('.gguf'))
  const path = gguf === undefined ? folder : join(folder, gguf)
  const found = await lookInside({ path, ...(base && { base: base.path }) }, told, signal)
  return { ...found, ...(base && { base }) }
}

/** What a thread finds at a path; throws a 400 that says what is wrong. */
export async function lookInside(
  request: ImportRequest,
  told: ImportModelDeps['told'] = (message) => message,
  signal?: AbortSignal,
): Promise<Omit<Looked, 'base'>> {
  await using thread = spawn<ImportRequest, ImportEvent>(WORKER)
  try {
    for await (const event of thread.run(request, signal))
      if (event.type === 'checked') {
        const { type: _, ...found } = event
        return found
      }
  } catch (error) {
    if (signal?.aborted) throw error
    const why = told(error instanceof Error ? error.message : String(error))
    throw invalidRequest(`The model is not imported: ${why}`, {
      param: 'files',
      code: 'invalid_model',
    })
  }
  throw new Error('Looking at a model ended without a result.')
}

/** The model that an adapter is for: as it was named, else as its own config names it. */
async function findBase(
  models: ImportModelDeps['models'],
  {
    project_id,
    folder,
    base_model,
  }: { project_id: string; folder: string; base_model: string | null },
) {
  let json: { base_model_name_or_path?: unknown }
  try {
    json = JSON.parse(await readFile(join(folder, ADAPTER_CONFIG), 'utf8'))
  } catch (error) {
    // Not there: no adapter. What is no JSON, the thread says.
    if (!(error instanceof SyntaxError) && base_model !== null)
      throw invalidRequest('`base_model` is for adapters, and the files are none.', {
        param: 'base_model',
        code: 'invalid_value',
      })
    return undefined
  }
  const said = String(json?.base_model_name_or_path ?? '')
  // `HuggingFaceTB/SmolLM2-135M` is pulled as `SmolLM2-135M`.
  const names = base_model === null ? [said, said.split('/').at(-1)!] : [base_model]
  for (const name of names) {
    const found = name === '' ? undefined : await models.resolveRoot(project_id, name)
    if (found) return found
  }
  throw invalidRequest(
    base_model === null
      ? `The adapter is for ${JSON.stringify(said)}, which is not among the models here: name its base as \`base_model\`.`
      : `There is no model \`${base_model}\` with weights of its own here for the adapter.`,
    { param: 'base_model', code: 'model_not_found' },
  )
}

/** Stores the files and makes them a model: all of it, or nothing. `also` writes first in the same transaction. */
export async function publishImport(
  { stores, folders, quota, warm }: ImportModelDeps,
  { one, looked, unpacked }: { one: NewImport; looked: Looked; unpacked: Unpacked },
  also: (tx: PoolClient, model: string) => Promise<void>,
  signal?: AbortSignal,
): Promise<string> {
  const { id, project_id } = one
  const { base, kind } = looked
  const { folder } = unpacked
  const stem = base ? baseOfTunedName(base.id) : baseOfTunedName(fileName(unpacked.name))
  const slug = await organizationSlug(stores.db, one.organization_id)
  const model = tunedModelName(
    kind === 'gguf' ? stem.replace(/\.gguf$/, '') : stem,
    slug,
    one.user_provided_suffix,
    randomLetters(8),
  )
  const wanted = { folder, paths: looked.files, full: FULL }
  const { staged, files } = await stageFiles(stores.store, wanted, signal)
  try {
    await quota.admit(
      project_id,
      files.reduce((sum, { bytes }) => sum + bytes, 0),
    )
    const hashOf = (name: string) => files.find(({ path }) => path === name)!.sha256
    const adapter =
      kind === 'adapter'
        ? { sha256: hashOf(ADAPTER_WEIGHTS), config_sha256: hashOf(ADAPTER_CONFIG) }
        : undefined
    // Others lie beside it for whom it is no model.
    for (const name of await readdir(folder))
      if (!looked.files.includes(name)) await rm(join(folder, name))
    const place = adapter ? undefined : await folders.put(folder, project_id, files)
    const write = async (tx: PoolClient) => {
      await also(tx, model)
      await insertModel(tx, {
        id: model,
        project_id,
        import_id: id,
        parent: base?.id ?? model,
        root: base?.id ?? model,
        ...(adapter && {
          adapter_sha256: adapter.sha256,
          adapter_config_sha256: adapter.config_sha256,
        }),
      })
      if (base) await insertParents(tx, { project_id, model, parents: [base.id] })
      if (!adapter) await insertModelFiles(tx, { id: model, project_id }, files)
      await endImport(tx, id, {
        status: 'succeeded',
        imported_model: model,
        kind,
        ignored: [...unpacked.ignored],
      })
    }
    await keepObjects(stores, project_id, staged, write).catch(async (error) => {
      if (place) await folders.remove(project_id, files)
      throw error
    })
    const base_path = base?.path ?? (kind === 'gguf' ? join(place!, looked.files[0]!) : place!)
    await warm?.({
      id: model,
      base_path,
      root: base?.id ?? model,
      project_id,
      import_id: id,
      ...(adapter && { adapter }),
    }).catch(() => {})
    return model
  } catch (error) {
    for (const one of staged) await one.discard()
    throw error
  }
}
