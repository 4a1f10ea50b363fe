// What can be asked about the runs of an eval: create, look, cancel, delete, and what each row came to. Running them
// is the scheduler's.

import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor } from '../cursor.ts'
import {
  findOutputItem,
  listOutputItems,
  type OutputItem,
  type OutputItemQuery,
} from '../db/eval-output-items.ts'
import { deleteRunFiles } from '../db/eval-run-files.ts'
import {
  deleteEvalRun,
  type EvalRun,
  endEvalRun,
  findEvalRun,
  insertEvalRun,
  listEvalRuns,
  type RunExtension,
  type RunQuery,
  type RunSums,
  sumsOfRuns,
} from '../db/eval-runs.ts'
import type { Eval } from '../db/evals.ts'
import { type Db, transaction } from '../db/pool.ts'
import { cancelWork, insertWork } from '../db/work.ts'
import { newId } from '../ids.ts'
import type { Models } from '../models/model.ts'
import { releaseObjects, type Stores } from '../storage/objects.ts'
import { type DataSource, releaseItems } from './data.ts'
import type { Evals } from './evals.ts'
import type { Grading } from './grading.ts'
import { examplesOf, missing, pinRows, refuseUnsupported } from './prepare.ts'

/** The kind of work that a run is; those of checkpoints are done by a worker of their own. */
export const EVAL_RUN = 'eval.run'
export const CHECKPOINT_EVAL_RUN = 'eval.run.checkpoint'

/** A request that fits the schema. */
export interface CreateRun {
  name?: string
  metadata?: Record<string, string> | null
  data_source: DataSource
  luthier?: RunExtension
}

/** A run with what it came to so far. */
export type RunWithSums = EvalRun & RunSums

export interface RunsDeps {
  stores: Stores
  evals: Evals
  models: Pick<Models, 'resolve'>
  grading: Grading
  log: Pick<Logger, 'info'>
}

export interface Runs {
  create(project_id: string, eval_id: string, request: CreateRun): Promise<RunWithSums>
  retrieve(project_id: string, eval_id: string, id: string): Promise<RunWithSums>
  /** One more than `limit`, where there are more; so with every list here. */
  list(project_id: string, query: RunQuery): Promise<RunWithSums[]>
  cancel(project_id: string, eval_id: string, id: string): Promise<RunWithSums>
  delete(project_id: string, eval_id: string, id: string): Promise<void>
  items(
    project_id: string,
    eval_id: string,
    query: OutputItemQuery,
  ): Promise<{ run: EvalRun; items: OutputItem[] }>
  item(
    project_id: string,
    eval_id: string,
    which: { run_id: string; id: string },
  ): Promise<{ run: EvalRun; item: OutputItem }>
}

export function createRuns({ stores, evals, models, grading, log }: RunsDeps): Runs {
  const { db } = stores

  async function retrieve(project_id: string, eval_id: string, id: string): Promise<EvalRun> {
    const run = await findEvalRun(db, project_id, id)
    if (run?.eval_id !== eval_id) {
      await evals.retrieve(project_id, eval_id)
      throw notFound(`No run found with id '${id}' in the eval '${eval_id}'.`, { param: 'run_id' })
    }
    return run
  }

  async function withSums(runs: readonly EvalRun[]): Promise<RunWithSums[]> {
    const sums = await sumsOfRuns(
      db,
      runs.map(({ id }) => id),
    )
    return runs.map((run) => ({ ...run, ...(sums.get(run.id) ?? { criteria: [], usage: [] }) }))
  }
  const alone = async (run: EvalRun): Promise<RunWithSums> => (await withSums([run]))[0]!

  return {
    async create(project_id, eval_id, request) {
      const one = await evals.retrieve(project_id, eval_id)
      const { data_source, luthier } = request
      refuseUnsupported(data_source)
      if (data_source.type !== 'jsonl') {
        if (data_source.model === undefined) throw missing('data_source.model')
        await models.resolve(project_id, data_source.model)
      }
      const few_shot_sha256 = await examplesOf({ stores }, project_id, luthier)
      const { items_sha256, commit } = await pinRows({ stores, grading }, one, data_source)
      const run = await commit((tx) =>
        writeRun(tx, { ...newRun(one, request), items_sha256, few_shot_sha256 }),
      )
      log.info({ run: run.id, eval: eval_id, project: project_id }, 'eval run created')
      return alone(run)
    },

    retrieve: async (project_id, eval_id, id) => alone(await retrieve(project_id, eval_id, id)),

    async list(project_id, query) {
      await evals.retrieve(project_id, query.eval_id)
      if (query.after !== undefined)
        if ((await findEvalRun(db, project_id, query.after))?.eval_id !== query.eval_id)
          throw badCursor(query.after)
      return withSums(await listEvalRuns(db, { ...query, limit: query.limit + 1 }))
    },

    async cancel(project_id, eval_id, id) {
      await retrieve(project_id, eval_id, id)
      const canceled = await transaction(db, async (tx) => {
        await cancelWork(tx, id)
        return endEvalRun(tx, id, 'canceled')
      })
      if (!canceled) {
        const { status } = await retrieve(project_id, eval_id, id)
        throw invalidRequest(
          `The run ${id} cannot be canceled: its status is '${status}'.`,
          // Not a 409: clients try those again, and this will not change.
          { code: 'invalid_run_state' },
        )
      }
      log.info({ run: id }, 'eval run canceled')
      return alone(canceled)
    },

    async delete(project_id, eval_id, id) {
      await retrieve(project_id, eval_id, id)
      const { deleted, weights } = await transaction(db, async (tx) => {
        await cancelWork(tx, id)
        const weights = await deleteRunFiles(tx, [id])
        return { deleted: await deleteEvalRun(tx, project_id, id), weights }
      })
      if (deleted) await releaseItems(stores, project_id, deleted)
      await releaseObjects(stores, project_id, weights)
    },

    async items(project_id, eval_id, query) {
      const run = await retrieve(project_id, eval_id, query.run_id)
      if (query.after !== undefined && !(await findOutputItem(db, run.id, query.after)))
        throw badCursor(query.after)
      return { run, items: await listOutputItems(db, { ...query, limit: query.limit + 1 }) }
    },

    async item(project_id, eval_id, { run_id, id }) {
      const run = await retrieve(project_id, eval_id, run_id)
      const item = await findOutputItem(db, run.id, id)
      if (!item)
        throw notFound(`No output item found with id '${id}' in the run '${run_id}'.`, {
          param: 'output_item_id',
        })
      return { run, item }
    },
  }
}

/** A run as its request says it. */
export const newRun = (one: Eval, { name, metadata, data_source, luthier }: CreateRun) => ({
  id: newId('evalrun_'),
  project_id: one.project_id,
  eval_id: one.id,
  name: name ?? data_source.model ?? one.name,
  model: data_source.type === 'jsonl' ? null : (data_source.model ?? null),
  data_source: data_source as unknown as Record<string, unknown>,
  luthier: luthier ?? null,
  metadata: metadata ?? null,
  job_id: null,
  step: null,
  merge_id: null,
  candidate: null,
  root: null,
})

/** Puts the run and its work in line. */
export async function writeRun(
  tx: Db,
  run: Parameters<typeof insertEvalRun>[1],
  kind = EVAL_RUN,
): Promise<EvalRun> {
  await insertWork(tx, { id: run.id, kind, project_id: run.project_id })
  return insertEvalRun(tx, run)
}
