// The weights that a run of an eval asks: a model's, or those of a search's candidate, which are no model's. Their copy on
// this machine goes with the run.

import { modelNotFound } from '../../errors.ts'
import { listRunFiles } from '../db/eval-run-files.ts'
import type { EvalRun } from '../db/eval-runs.ts'
import type { ResolvedModel } from '../models/model.ts'
import type { ModelRegistry } from '../models/registry.ts'
import type { Stores } from '../storage/objects.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import type { AdapterFiles } from './adapter-files.ts'
import type { ModelFolders } from './model-folders.ts'
import type { Serving } from './serving.ts'

export interface WeightsDeps {
  stores: Pick<Stores, 'db'>
  models: Pick<ModelRegistry, 'resolve' | 'resolveRoot'>
  adapterFile: Pick<AdapterFiles, 'forget'>
  folders: Pick<ModelFolders, 'lend'>
  serving: Pick<Serving, 'forget'>
}

export interface WeightsOfRun extends AsyncDisposable {
  /** Undefined where the rows bring their answers. */
  model: ResolvedModel | undefined
}

/** Throws where they are not there any more. */
export async function openWeights(deps: WeightsDeps, run: EvalRun): Promise<WeightsOfRun> {
  const { models } = deps
  const { project_id, model: id, merge_id } = run
  if (id === null) return { model: undefined, async [Symbol.asyncDispose]() {} }
  if (merge_id === null)
    return { model: await models.resolve(project_id, id), async [Symbol.asyncDispose]() {} }
  const files = await patiently(() => listRunFiles(deps.stores.db, run.id))
  if (files.length === 0) throw new Hopeless(`The weights of ${id} are not there any more.`)
  return run.root === null
    ? openModel(deps, { ...run, model: id }, files)
    : openAdapter(deps, { ...run, model: id, root: run.root }, files)
}

type Files = Awaited<ReturnType<typeof listRunFiles>>

async function openModel(
  { folders, serving }: WeightsDeps,
  { id, project_id, model: name }: EvalRun & { model: string },
  files: Files,
): Promise<WeightsOfRun> {
  const { path, cache, [Symbol.asyncDispose]: giveBack } = await folders.lend(id, project_id, files)
  const model = { id: name, base_path: path, cache, root: name, project_id }
  return {
    model,
    async [Symbol.asyncDispose]() {
      // Files that are open take their room on the disk until they are closed.
      await serving.forget(model).finally(giveBack)
    },
  }
}

async function openAdapter(
  { models, adapterFile }: WeightsDeps,
  { project_id, model: id, root }: EvalRun & { model: string; root: string },
  files: Files,
): Promise<WeightsOfRun> {
  const base = await models.resolveRoot(project_id, root)
  if (!base) throw modelNotFound(root)
  const hashOf = (name: string) => files.find(({ path }) => path === name)!.sha256
  const adapter = {
    sha256: hashOf('adapter_model.safetensors'),
    config_sha256: hashOf('adapter_config.json'),
  }
  return {
    model: { id, base_path: base.path, root, project_id, adapter },
    [Symbol.asyncDispose]: () => adapterFile.forget(adapter),
  }
}
