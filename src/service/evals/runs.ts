// What can be asked about the runs of an eval: create, look, cancel, delete, and what each row came to. Running them
// is the scheduler's.

import type { ItemSchema } from '../../engine/eval/items.ts'
import { checkMessages } from '../../engine/eval/template.ts'
import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor } from '../cursor.ts'
import {
  findOutputItem,
  listOutputItems,
  type OutputItem,
  type OutputItemQuery,
} from '../db/eval-output-items.ts'
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
import { findFile } from '../db/files.ts'
import { type Db, transaction } from '../db/pool.ts'
import { cancelWork, insertWork } from '../db/work.ts'
import { newId } from '../ids.ts'
import type { Models } from '../models/model.ts'
import { keepObject, type Stores } from '../storage/objects.ts'
import { asJsonl, type DataSource, releaseItems } from './data.ts'
import type { Evals } from './evals.ts'
import type { Grading } from './grading.ts'

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
  /** Checks and pins what a run needs; `commit` then writes it, with whatever belongs to it. */
  prepare(project_id: string, one: Eval, request: CreateRun): Promise<PreparedRun>
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

/** All that is known of a run before it is written. */
export interface PreparedRun {
  items_sha256: string
  few_shot_sha256: string | null
  /** Writes in a transaction in which the pinned bytes cannot go. */
  commit<T>(write: (tx: Db) => Promise<T>): Promise<T>
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

  async function fileOf(project_id: string, id: string, param: string): Promise<string> {
    const file = await findFile(db, project_id, id)
    if (!file)
      throw invalidRequest(`The file \`${id}\` does not exist.`, { param, code: 'invalid_file' })
    if (file.status === 'error')
      throw invalidRequest(`The file \`${id}\` is no JSONL: ${file.status_details}`, {
        param,
        code: 'invalid_file',
      })
    return file.sha256
  }

  async function prepare(
    project_id: string,
    one: Eval,
    { data_source, luthier }: CreateRun,
  ): Promise<PreparedRun> {
    refuseUnsupported(data_source)
    if (data_source.type !== 'jsonl') {
      if (data_source.model === undefined) throw missing('data_source.model')
      await models.resolve(project_id, data_source.model)
    }
    const few_shot_sha256 = luthier?.few_shot
      ? await fileOf(project_id, luthier.few_shot.file_id, 'luthier.few_shot.file_id')
      : null
    const { source } = data_source
    if (source.type === 'file_id') {
      const items_sha256 = await fileOf(project_id, source.id ?? '', 'data_source.source.id')
      return { items_sha256, few_shot_sha256, commit: (write) => transaction(db, write) }
    }
    const content = source.content ?? []
    await checkContent(content, schemaOf(one))
    const staged = await stores.store.stage(asJsonl(content))
    const commit: PreparedRun['commit'] = (write) => keepObject(stores, project_id, staged, write)
    return { items_sha256: staged.sha256, few_shot_sha256, commit }
  }

  async function checkContent(content: unknown[], schema: ItemSchema): Promise<void> {
    const bad = await grading.badItem(content, schema).catch((error: unknown) => {
      if (!(error instanceof Error) || error.name !== 'GradingStopped') throw error
      return { index: 0, error: `cannot be held against the eval's schema: ${error.message}` }
    })
    if (!bad) return
    const param = `data_source.source.content[${bad.index}]`
    throw invalidRequest(`Invalid '${param}': ${bad.error}`, { param, code: 'invalid_item' })
  }

  return {
    prepare,

    async create(project_id, eval_id, request) {
      const one = await evals.retrieve(project_id, eval_id)
      const prepared = await prepare(project_id, one, request)
      const run = await prepared.commit((tx) =>
        writeRun(tx, { ...newRun(one, request), ...pins(prepared) }),
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
      const deleted = await transaction(db, async (tx) => {
        await cancelWork(tx, id)
        return deleteEvalRun(tx, project_id, id)
      })
      if (deleted) await releaseItems(stores, project_id, deleted)
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

/** The schema that each row's `item` must fit. */
export const schemaOf = ({ data_source_config }: Eval): ItemSchema => data_source_config.item_schema

export const pins = ({ items_sha256, few_shot_sha256 }: PreparedRun) => ({
  items_sha256,
  few_shot_sha256,
})

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

function refuseUnsupported(data_source: DataSource): void {
  const { source, input_messages, sampling_params = {} } = data_source
  if (source.type === 'stored_completions' || source.type === 'responses')
    throw invalidRequest(
      "This server keeps no completions and no responses of requests that a run could draw on. Use a source of type 'file_content' or 'file_id'.",
      { param: 'data_source.source.type', code: 'unsupported_data_source' },
    )
  if (source.type === 'file_content' && !source.content?.length)
    throw source.content
      ? invalidRequest("Invalid 'data_source.source.content': expected at least one row.", {
          param: 'data_source.source.content',
          code: 'invalid_value',
        })
      : missing('data_source.source.content')
  if (source.type === 'file_id' && source.id === undefined) throw missing('data_source.source.id')
  if (data_source.type === 'jsonl') return
  if (!input_messages) throw missing('data_source.input_messages')
  if (input_messages.type === 'template')
    checkMessages(input_messages.template, 'data_source.input_messages.template')
  const where = 'data_source.sampling_params'
  const { response_format, text, tools } = sampling_params
  const format = response_format?.type ?? text?.format?.type ?? 'text'
  if (format !== 'text')
    throw unsupported(`${where}.${response_format ? 'response_format' : 'text'}`)
  if (tools && tools.length > 0) throw unsupported(`${where}.tools`)
}

const missing = (param: string) =>
  invalidRequest(`Missing required parameter: '${param}'.`, {
    param,
    code: 'missing_required_parameter',
  })

const unsupported = (param: string) =>
  invalidRequest(`Unsupported parameter: '${param}' is not supported by this server.`, {
    param,
    code: 'unsupported_parameter',
  })
