// What can be asked about comparisons: create, which starts the runs that are missing, and look, which reckons them
// once all have ended.

import { isDeepStrictEqual } from 'node:util'
import { methodOf } from '../../engine/train/methods/index.ts'
import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor } from '../cursor.ts'
import {
  type ComparedRun,
  type ComparisonQuery,
  type EvalComparison,
  endComparison,
  findComparison,
  insertComparison,
  listComparisons,
} from '../db/eval-comparisons.ts'
import {
  type EvalRun,
  findEvalRun,
  findNewestSampling,
  findRunsOver,
  type RunExtension,
  runsByIds,
} from '../db/eval-runs.ts'
import type { Eval } from '../db/evals.ts'
import { findJob } from '../db/fine-tuning-jobs.ts'
import { type Db, transaction } from '../db/pool.ts'
import { newId } from '../ids.ts'
import type { Models } from '../models/model.ts'
import { tunedModelOfLive } from '../models/names.ts'
import type { Stores } from '../storage/objects.ts'
import { type DataSource, samplingOf } from './data.ts'
import type { Evals } from './evals.ts'
import type { Grading } from './grading.ts'
import { examplesOf, type PinnedRows, pinRows, refuseUnsupported } from './prepare.ts'
import { reckon } from './reckon.ts'
import { newRun, writeRun } from './runs.ts'

/** A run that there is, or one that is asked for. */
export type Contender =
  | { run_id: string; label?: string }
  | { model: string; few_shot?: RunExtension['few_shot']; label?: string }

/** A request that fits the schema. */
export interface CreateComparison {
  name?: string
  metadata?: Record<string, string> | null
  runs?: Contender[]
  /** Stands for three: its base as it is, its base behind examples of its training file, and itself. */
  tuned_model?: string
  /** What the runs that are asked for go over; absent: what the eval's newest run of a model went over. */
  data_source?: Omit<DataSource, 'model'>
  groups?: string[]
}

/** A comparison with the state of its runs. */
export interface ShownComparison extends EvalComparison {
  /** In the order of `runs`; undefined for one that was deleted. */
  states: (
    | Pick<EvalRun, 'status' | 'few_shot' | 'total' | 'passed' | 'failed' | 'errored'>
    | undefined
  )[]
}

export interface Comparisons {
  create(project_id: string, eval_id: string, request: CreateComparison): Promise<ShownComparison>
  retrieve(project_id: string, eval_id: string, id: string): Promise<ShownComparison>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: ComparisonQuery): Promise<ShownComparison[]>
}

export interface ComparisonsDeps {
  stores: Stores
  evals: Pick<Evals, 'retrieve'>
  models: Pick<Models, 'resolve' | 'retrieve'>
  grading: Grading
  log: Pick<Logger, 'info' | 'error'>
}

export const MOST_RUNS = 8
/** So long a request waits for figures that are being reckoned. */
const WAIT_MS = 5000

export function createComparisons({
  stores,
  evals,
  models,
  grading,
  log,
}: ComparisonsDeps): Comparisons {
  const { db } = stores
  const reckoning = new Map<string, Promise<void>>()

  /** What a comparison has come to; ends it where it can be ended. */
  async function settle(one: EvalComparison): Promise<ShownComparison> {
    const runs = await runsByIds(
      db,
      one.runs.map(({ run_id }) => run_id),
    )
    const show = (shown: EvalComparison): ShownComparison => ({
      ...shown,
      states: one.runs.map(({ run_id }) => runs.get(run_id)),
    })
    if (one.status !== 'in_progress') return show(one)
    const error = one.runs.map((run) => mishapOf(run, runs.get(run.run_id))).find((e) => e)
    if (error) await endComparison(db, one.id, { error })
    else if ([...runs.values()].every(({ status }) => status === 'completed'))
      await Promise.race([reckonOnce(one, runs), later(WAIT_MS)])
    else return show(one)
    return show((await findComparison(db, one.eval_id, one.id)) ?? one)
  }

  function reckonOnce(one: EvalComparison, runs: ReadonlyMap<string, EvalRun>): Promise<void> {
    const known = reckoning.get(one.id)
    if (known) return known
    const started = evals
      .retrieve(one.project_id, one.eval_id)
      .then((of) => reckon(db, of, { comparison: one, runs }))
      .then(async (report) => {
        await endComparison(db, one.id, { report })
        log.info({ comparison: one.id }, 'comparison completed')
      })
      .catch((err) => log.error({ comparison: one.id, err }, 'a comparison could not be reckoned'))
      .finally(() => reckoning.delete(one.id))
    reckoning.set(one.id, started)
    return started
  }

  /** What a run of a model is to be, made sure of. */
  async function prepareRun(
    one: Eval,
    { model, few_shot }: Extract<Contender, { model: string }>,
    at: string,
  ): Promise<{ model: string; luthier: RunExtension | undefined; few_shot_sha256: string | null }> {
    await models.resolve(one.project_id, model)
    const luthier = few_shot && { few_shot }
    const param = `${at}.few_shot.file_id`
    const few_shot_sha256 = await examplesOf({ stores }, one.project_id, luthier, param)
    return { model, luthier, few_shot_sha256 }
  }

  /** Of the request, or of the newest run that sampled a model. */
  async function rowsOf(
    one: Eval,
    sent: CreateComparison['data_source'],
  ): Promise<{ data_source: DataSource; rows: PinnedRows }> {
    if (sent) {
      refuseUnsupported(sent)
      return { data_source: sent, rows: await pinRows({ stores, grading }, one, sent) }
    }
    const newest = await findNewestSampling(db, one.id)
    if (!newest)
      throw invalidRequest(
        "No run of this eval has sampled a model yet whose rows could be taken again: send a 'data_source'.",
        { param: 'data_source', code: 'missing_required_parameter' },
      )
    const commit: PinnedRows['commit'] = (write) => transaction(db, write)
    return {
      data_source: newest.data_source as unknown as DataSource,
      rows: { items_sha256: newest.items_sha256, commit },
    }
  }

  async function existing(one: Eval, run_id: string, at: string): Promise<EvalRun> {
    const run = await findEvalRun(db, one.project_id, run_id)
    if (run?.eval_id !== one.id)
      throw invalidRequest(`The eval '${one.id}' has no run '${run_id}'.`, {
        param: `${at}.run_id`,
        code: 'invalid_value',
      })
    return run
  }

  return {
    async create(project_id, eval_id, request) {
      const one = await evals.retrieve(project_id, eval_id)
      const contenders = [
        ...(request.runs ?? []),
        ...(request.tuned_model === undefined
          ? []
          : await contendersOf({ db, models }, project_id, request.tuned_model)),
      ]
      if (contenders.length < 2 || contenders.length > MOST_RUNS)
        throw invalidRequest(
          `A comparison has 2 to ${MOST_RUNS} runs; found ${contenders.length}: name them in 'runs', or name a 'tuned_model'.`,
          { param: 'runs', code: 'invalid_value' },
        )
      const prepared = await Promise.all(
        contenders.map(async (contender, i) => {
          const at = `runs[${i}]`
          return 'run_id' in contender
            ? { label: contender.label, run: await existing(one, contender.run_id, at) }
            : { label: contender.label, asked: await prepareRun(one, contender, at) }
        }),
      )
      const given = prepared.flatMap(({ run }) => run ?? []).map(({ id }) => id)
      const twice = given.find((id, i) => given.indexOf(id) !== i)
      if (twice !== undefined)
        throw invalidRequest(`The run '${twice}' is named twice.`, {
          param: 'runs',
          code: 'invalid_value',
        })
      const needsRows = prepared.some(({ asked }) => asked)
      const source = needsRows ? await rowsOf(one, request.data_source) : undefined

      const commit: PinnedRows['commit'] =
        source?.rows.commit ?? ((write) => transaction(db, write))
      const created = await commit(async (tx) => {
        const runs: ComparedRun[] = []
        for (const { label, run: named, asked } of prepared) {
          const run = named ?? (await runFor(tx, one, { ...source!, ...asked! }))
          runs.push({ run_id: run.id, label: label ?? labelOf(run), model: run.model })
        }
        return insertComparison(tx, {
          id: newId('evalcmp_'),
          project_id,
          eval_id,
          name:
            request.name ??
            runs
              .map((run) => run.label)
              .join(', ')
              .slice(0, 256),
          runs,
          groups: request.groups ?? [],
          metadata: request.metadata ?? null,
        })
      })
      log.info({ comparison: created.id, eval: eval_id }, 'comparison created')
      return settle(created)
    },

    async retrieve(project_id, eval_id, id) {
      await evals.retrieve(project_id, eval_id)
      const one = await findComparison(db, eval_id, id)
      if (!one)
        throw notFound(`No comparison found with id '${id}' in the eval '${eval_id}'.`, {
          param: 'comparison_id',
        })
      return settle(one)
    },

    async list(project_id, query) {
      const { eval_id, after } = query
      await evals.retrieve(project_id, eval_id)
      if (after !== undefined && !(await findComparison(db, eval_id, after))) throw badCursor(after)
      const found = await listComparisons(db, { ...query, limit: query.limit + 1 })
      return Promise.all(found.map(settle))
    },
  }
}

/** A tuned model beside its base, without and with examples. */
async function contendersOf(
  { db, models }: { db: Db; models: Pick<Models, 'retrieve'> },
  project_id: string,
  name: string,
): Promise<Contender[]> {
  const { root, job_id } = await models.retrieve(project_id, name)
  const job = job_id === null ? undefined : await findJob(db, project_id, job_id)
  const where = { param: 'tuned_model', code: 'invalid_value' }
  if (!job)
    throw invalidRequest(
      `The model \`${name}\` was made by no job of this project, so that nothing is known of its training file. Name its contenders in 'runs'.`,
      where,
    )
  if (methodOf(job.method.type).encoders)
    throw invalidRequest(
      `The model \`${name}\` was tuned by the method '${job.method.type}': its base answers nothing by itself. Name its contenders in 'runs'.`,
      where,
    )
  return [
    { model: root, label: 'base' },
    {
      model: root,
      few_shot: { file_id: job.training_file, examples: 'auto' },
      label: 'base, few-shot',
    },
    { model: name, label: 'tuned' },
  ]
}

/** The run that was made for the same question, or a new one. */
async function runFor(
  tx: Db,
  one: Eval,
  asked: {
    data_source: DataSource
    rows: PinnedRows
    model: string
    luthier: RunExtension | undefined
    few_shot_sha256: string | null
  },
): Promise<EvalRun> {
  const { model, luthier, few_shot_sha256 } = asked
  const { items_sha256 } = asked.rows
  const data_source = { ...asked.data_source, model }
  // What `…:live` names is another model tomorrow.
  const known = tunedModelOfLive(model)
    ? []
    : await findRunsOver(tx, one.id, { model, items_sha256, few_shot_sha256 })
  const same = known.find((run) => {
    const other = run.data_source as unknown as DataSource
    return (
      isDeepStrictEqual(samplingOf(other), samplingOf(data_source)) &&
      isDeepStrictEqual(other.input_messages, data_source.input_messages) &&
      isDeepStrictEqual(run.luthier?.few_shot, luthier?.few_shot)
    )
  })
  if (same) return same
  const run = newRun(one, { data_source, ...(luthier && { luthier }) })
  return writeRun(tx, { ...run, items_sha256, few_shot_sha256 })
}

const labelOf = (run: EvalRun): string => {
  const examples = run.luthier?.few_shot?.examples
  return examples === undefined ? run.name : `${run.name}, few-shot (${examples})`
}

/** Why there will be no figures. */
function mishapOf(
  { run_id }: ComparedRun,
  run: EvalRun | undefined,
): EvalComparison['error'] | undefined {
  if (!run)
    return { code: 'run_deleted', message: `The run ${run_id} was deleted before all had ended.` }
  if (run.status === 'canceled')
    return { code: 'run_canceled', message: `The run ${run_id} was canceled.` }
  if (run.status === 'failed')
    return {
      code: 'run_failed',
      message: `The run ${run_id} failed: ${run.error?.message ?? 'its log has the details.'}`,
    }
  return undefined
}

const later = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms).unref()
  })
