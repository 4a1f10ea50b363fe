// The models of a project under one roof: base models on disk, aliases, tuned models and checkpoints.

import { resolve as absolute, join } from 'node:path'
import { invalidRequest, modelNotFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import {
  endCheckpointNames,
  findCheckpointByName,
  findNewestCheckpoint,
  type NamedCheckpoint,
} from '../db/fine-tuning-checkpoints.ts'
import {
  deleteModel,
  findModel,
  findUser,
  listModelFiles,
  listModels,
  type ModelFile,
  type TunedModel,
} from '../db/models.ts'
import { transaction } from '../db/pool.ts'
import { releaseObjects, type Stores } from '../storage/objects.ts'
import { type BaseModel, scanBaseModels } from './base-models.ts'
import type { ModelEntry, Models, ResolvedModel, StoredAdapter } from './model.ts'
import { tunedModelOfLive } from './names.ts'

export interface ModelsOptions {
  stores: Stores
  /** Where the base models lie. */
  folder: string
  /** A name that clients send → the base model that answers. */
  aliases: Readonly<Record<string, string>>
  /** Where models with files of their own lie on this machine. */
  folders: FoldersOfModels
  log: Pick<Logger, 'warn'>
}

/** Folders made of stored objects: `scheduler/model-folders.ts`. */
export interface FoldersOfModels {
  of(project_id: string, files: readonly ModelFile[]): Promise<string>
  remove(project_id: string, files: readonly ModelFile[]): Promise<void>
}

export interface ModelRegistry extends Models {
  /** Every base model that is installed. */
  bases(): Promise<readonly BaseModel[]>
  /** A base model by its id or an alias, with its real id. */
  resolveBase(name: string): Promise<BaseModel | undefined>
  /** What can be tuned afresh: a base model, or one of the project's that has files of its own. */
  resolveRoot(project_id: string, name: string): Promise<Pick<BaseModel, 'id' | 'path'> | undefined>
}

/** A scan answers for this long: every inference asks. */
const SCAN_MS = 2000

/** Reads the folder once, so that two models of one id end the start and not a request. */
export async function openModels(options: ModelsOptions): Promise<ModelRegistry> {
  const registry = new Registry(options)
  const found = await registry.scan()
  for (const [alias, target] of Object.entries(options.aliases)) {
    if (found.has(alias) && alias !== target)
      throw new Error(`The alias "${alias}" is the name of a base model: ${found.get(alias)?.path}`)
    // It may still be pulled.
    if (!found.has(target))
      options.log.warn({ alias, target }, 'alias of a base model that is not installed')
  }
  return registry
}

class Registry implements ModelRegistry {
  readonly #stores: Stores
  readonly #folder: string
  readonly #aliases: ReadonlyMap<string, string>
  readonly #folders: FoldersOfModels
  #scanned: { at: number; models: Promise<ReadonlyMap<string, BaseModel>> } | undefined

  constructor({ stores, folder, aliases, folders }: ModelsOptions) {
    this.#stores = stores
    this.#folders = folders
    this.#folder = absolute(folder)
    this.#aliases = new Map(Object.entries(aliases))
  }

  scan(): Promise<ReadonlyMap<string, BaseModel>> {
    const now = performance.now()
    if (!this.#scanned || now - this.#scanned.at > SCAN_MS) {
      const models = scanBaseModels(this.#folder)
      this.#scanned = { at: now, models }
      // What failed is asked again next time, not in two seconds.
      models.catch(() => {
        this.#scanned = undefined
      })
    }
    return this.#scanned.models
  }

  async bases() {
    return [...(await this.scan()).values()]
  }

  async resolveBase(name: string): Promise<BaseModel | undefined> {
    const models = await this.scan()
    return models.get(name) ?? models.get(this.#aliases.get(name) ?? name)
  }

  async resolve(project_id: string, name: string): Promise<ResolvedModel> {
    const base = await this.resolveBase(name)
    if (base) return { id: name, base_path: base.path, root: base.id, project_id }
    const tuned = await this.#findTuned(project_id, name)
    if (!tuned) throw modelNotFound(name)
    const { root, adapter, job_id, merge_id, import_id } = tuned
    const made = {
      ...(job_id !== null && { job_id }),
      ...(merge_id !== null && { merge_id }),
      ...(import_id !== null && { import_id }),
    }
    const under = await this.resolveRoot(project_id, adapter ? root : name)
    if (!under)
      throw invalidRequest(
        `The model \`${name}\` is an adapter of the base model \`${root}\`, which is not installed.`,
        { param: 'model', code: 'base_model_missing' },
      )
    const model = { id: name, base_path: under.path, root, project_id, ...made }
    return adapter ? { ...model, adapter } : model
  }

  async resolveRoot(project_id: string, name: string) {
    const base = await this.resolveBase(name)
    if (base) return base
    const files = await listModelFiles(this.#stores.db, { id: name, project_id })
    if (files.length === 0) return undefined
    const folder = await this.#folders.of(project_id, files)
    const [only, ...others] = files
    const gguf = others.length === 0 && only?.path.endsWith('.gguf') ? only.path : ''
    return { id: name, path: join(folder, gguf) }
  }

  async retrieve(project_id: string, name: string): Promise<ModelEntry> {
    const base = await this.resolveBase(name)
    if (base) return presentBase(name, base)
    const tuned = await this.#findTuned(project_id, name)
    if (!tuned) throw modelNotFound(name)
    return tuned.entry
  }

  async list(project_id: string): Promise<ModelEntry[]> {
    const models = await this.scan()
    const aliases = [...this.#aliases].flatMap(([alias, target]) => {
      const base = models.get(target)
      return base && !models.has(alias) ? [presentBase(alias, base)] : []
    })
    const base = [...models.values()].map((model) => presentBase(model.id, model))
    const tuned = (await listModels(this.#stores.db, project_id)).map(entryOfModel)
    return [...base, ...aliases, ...tuned]
  }

  async delete(project_id: string, name: string): Promise<void> {
    if (await this.resolveBase(name))
      throw invalidRequest(`The model \`${name}\` is a base model, which cannot be deleted.`, {
        param: 'model',
        code: 'base_model',
      })
    let own: readonly ModelFile[] = []
    const freed = await transaction(this.#stores.db, async (tx) => {
      const user = await findUser(tx, project_id, name)
      if (user !== undefined)
        throw invalidRequest(
          `The model \`${name}\` cannot be deleted: \`${user}\` builds on it. Delete or cancel that first.`,
          { param: 'model', code: 'model_in_use' },
        )
      const model = await deleteModel(tx, project_id, name)
      if (model) {
        const { job_id } = model
        own = model.files
        return [
          ...adapterOf(model),
          ...(job_id === null ? [] : await endCheckpointNames(tx, { project_id, job_id })),
        ]
      }
      const checkpoint = await findCheckpointByName(tx, project_id, name)
      if (!checkpoint) throw modelNotFound(name)
      return endCheckpointNames(tx, { project_id, job_id: checkpoint.job_id, name })
    })
    const hashes = [
      ...freed.flatMap(({ sha256, config_sha256 }) => [sha256, config_sha256]),
      ...own.map(({ sha256 }) => sha256),
    ]
    if (own.length > 0) await this.#folders.remove(project_id, own)
    await releaseObjects(this.#stores, project_id, hashes)
  }

  async #findTuned(project_id: string, name: string) {
    const model = await findModel(this.#stores.db, project_id, name)
    if (model)
      return {
        root: model.root,
        job_id: model.job_id,
        merge_id: model.merge_id,
        import_id: model.import_id,
        adapter: adapterOf(model)[0],
        entry: entryOfModel(model),
      }
    const live = tunedModelOfLive(name)
    const { db } = this.#stores
    const checkpoint = live
      ? await findNewestCheckpoint(db, project_id, live)
      : await findCheckpointByName(db, project_id, name)
    if (!checkpoint) return undefined
    return {
      root: checkpoint.root,
      job_id: checkpoint.job_id,
      merge_id: null,
      import_id: null,
      adapter: adapterOf(checkpoint)[0],
      entry: { ...entryOfCheckpoint(checkpoint), id: name },
    }
  }
}

/** One, or none where the model has files of its own. */
const adapterOf = ({
  adapter_sha256: sha256,
  adapter_config_sha256: config_sha256,
}: Pick<TunedModel, 'adapter_sha256' | 'adapter_config_sha256'>): StoredAdapter[] =>
  sha256 === null || config_sha256 === null ? [] : [{ sha256, config_sha256 }]

const presentBase = (id: string, model: BaseModel): ModelEntry => ({
  id,
  created_at: model.created_at,
  owned_by: 'system',
  parent: id === model.id ? null : model.id,
  root: model.id,
  job_id: null,
  parity: null,
})

const entryOfModel = (model: TunedModel): ModelEntry => ({
  id: model.id,
  created_at: model.created_at,
  owned_by: model.owned_by,
  // What came from outside was made of nothing here.
  parent: model.parent === model.id ? null : model.parent,
  root: model.root,
  job_id: model.job_id,
  parity: model.parity,
})

const entryOfCheckpoint = (checkpoint: NamedCheckpoint): ModelEntry => ({
  id: checkpoint.fine_tuned_model_checkpoint,
  created_at: checkpoint.created_at,
  owned_by: checkpoint.owned_by,
  parent: checkpoint.model,
  root: checkpoint.root,
  job_id: checkpoint.job_id,
  parity: null,
})
