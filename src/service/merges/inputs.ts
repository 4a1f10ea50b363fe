// The models that a merge names, as files on this machine.

import { keyOf, type ModelName } from '../../engine/merge/config.ts'
import type { ModelFiles } from '../../engine/merge/models.ts'
import { ApiError, invalidRequest } from '../../errors.ts'
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

/** The models and adapters by the names that their owner knows. */
export const parentsOf = (names: readonly ModelName[]): string[] => [
  ...new Set(names.flatMap(({ model, adapter }) => (adapter ? [adapter, model] : [model]))),
]
