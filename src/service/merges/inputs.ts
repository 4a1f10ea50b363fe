// The models that a merge names, as files on this machine.

import { keyOf, type ModelName } from '../../engine/merge/config.ts'
import type { ModelFiles } from '../../engine/merge/models.ts'
import { type Requested, searchedIn } from '../../engine/merge/requested.ts'
import { ApiError, invalidRequest } from '../../errors.ts'
import { type FileRecord, findFile } from '../db/files.ts'
import type { Db } from '../db/pool.ts'
import { pinEval } from '../evals/pinned.ts'
import type { ResolvedModel } from '../models/model.ts'
import type { ModelRegistry } from '../models/registry.ts'

export interface InputDeps {
  models: Pick<ModelRegistry, 'resolve'>
  adapterFile: (model: ResolvedModel) => Promise<string>
}

/** The files of each model, by `model` or `model+adapter`. Throws where the project has none of that name. */
export async function inputFiles(
  { models, adapterFile }: InputDeps,
  project_id: string,
  names: readonly ModelName[],
): Promise<Record<string, ModelFiles>> {
  const find = async (name: string) => {
    try {
      return await models.resolve(project_id, name)
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      throw new ApiError(error.status, error.message, { ...error, param: 'config' })
    }
  }
  const found: Record<string, ModelFiles> = {}
  for (const name of names) {
    const model = await find(name.model)
    if (name.adapter !== undefined && model.adapter)
      throw invalidRequest(
        `\`${name.model}\` is an adapter already: what stands before the '+' is a model with all of its weights.`,
        { param: 'config', code: 'invalid_value' },
      )
    const tuned = name.adapter === undefined ? model : await find(name.adapter)
    if (name.adapter !== undefined && !tuned.adapter)
      throw invalidRequest(`\`${name.adapter}\` is not an adapter.`, {
        param: 'config',
        code: 'invalid_value',
      })
    found[keyOf(name)] = {
      path: model.base_path,
      ...(tuned.adapter && { adapter: await adapterFile(tuned) }),
    }
  }
  return found
}

/** The rows that a search compares its candidates on; undefined where nothing is searched, or by an eval. */
export async function rowsOfSearch(
  db: Db,
  project_id: string,
  requested: Requested,
): Promise<FileRecord | undefined> {
  const id = searchedIn(requested)?.search.validation_file
  if (id === undefined) return undefined
  const file = await findFile(db, project_id, id)
  const where = { param: 'search.validation_file', code: 'invalid_validation_file' }
  if (!file) throw invalidRequest(`The validation file \`${id}\` does not exist.`, where)
  if (file.purpose === 'fine-tune') return file
  throw invalidRequest(
    `The validation file \`${id}\` has the purpose '${file.purpose}', expected 'fine-tune'.`,
    where,
  )
}

/** The eval that a search goes by, with rows to run it on; undefined where it goes by none. */
export async function evalOfSearch(db: Db, project_id: string, requested: Requested) {
  const id = searchedIn(requested)?.search.eval
  return id === undefined ? undefined : pinEval(db, { project_id, id, param: 'search.eval' })
}

/** The model that an adapter which is to be made will fit; undefined where a model with all of its weights is made. */
export async function rootOfResult(
  { models }: Pick<InputDeps, 'models'>,
  project_id: string,
  requested: Requested,
): Promise<string | undefined> {
  if (requested.kind === 'models') return undefined
  if (requested.kind === 'extraction') {
    const { model, adapter } = requested.base_model
    const base = await models.resolve(project_id, model)
    if (adapter === undefined && !base.adapter) return base.root
    throw invalidRequest(
      `\`${keyOf(requested.base_model)}\` is an adapter over its base: an adapter is extracted beside a model with all of its weights.`,
      { param: 'base_model', code: 'invalid_value' },
    )
  }
  const found = new Map<string, string>()
  if (requested.base_model) {
    const { model } = requested.base_model
    found.set((await models.resolve(project_id, model)).root, model)
  }
  for (const { name } of requested.adapters) {
    const { adapter, root } = await models.resolve(project_id, name.model)
    if (!adapter)
      throw invalidRequest(`\`${name.model}\` is not an adapter.`, {
        param: 'adapters',
        code: 'invalid_value',
      })
    found.set(root, name.model)
  }
  const [[root, one], other] = [...found] as [[string, string], [string, string]?]
  if (!other) return root
  throw invalidRequest(
    `They are of different base models: \`${one}\` of \`${root}\`, \`${other[1]}\` of \`${other[0]}\`.`,
    { param: 'adapters', code: 'models_do_not_fit' },
  )
}

/** The models and adapters by the names that their owner knows. */
export const parentsOf = (names: readonly ModelName[]): string[] => [
  ...new Set(names.flatMap(({ model, adapter }) => (adapter ? [adapter, model] : [model]))),
]
