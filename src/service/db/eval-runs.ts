// The table `eval_runs` and the sums beside it. The states change where the status before allows it, in one statement.

import type { Db } from './pool.ts'

export type EvalRunStatus = 'queued' | 'in_progress' | 'completed' | 'failed' | 'canceled'

export interface RunMessage {
  role: string
  content: string
}

/** The examples that stand before each prompt. */
export interface FewShot {
  messages: RunMessage[]
  examples: number
  /** Of the longest prompt, examples and all. */
  prompt_tokens: number
}

/** What is ours in a run's request. */
export interface RunExtension {
  few_shot?: {
    /** JSONL as for training. */
    file_id: string
    examples: 'auto' | number
    max_prompt_tokens?: number
  }
}

export interface EvalRun {
  id: string
  project_id: string
  eval_id: string
  name: string
  status: EvalRunStatus
  model: string | null
  data_source: Record<string, unknown>
  luthier: RunExtension | null
  few_shot: FewShot | null
  metadata: Record<string, string> | null
  items_sha256: string
  few_shot_sha256: string | null
  total: number | null
  passed: number
  failed: number
  errored: number
  error: { code: string; message: string } | null
  job_id: string | null
  step: number | null
  /** The search whose candidate is asked; its weights are in `eval_run_files`, for they are no model's. */
  merge_id: string | null
  candidate: number | null
  /** The base model that they are an adapter of; null where they are all of a model. */
  root: string | null
  created_at: Date
  finished_at: Date | null
}

export interface RunSums {
  criteria: { criterion: string; passed: number; failed: number; score_sum: number }[]
  usage: {
    model: string
    invocation_count: number
    prompt_tokens: number
    completion_tokens: number
  }[]
}

export type NewEvalRun = Pick<
  EvalRun,
  | 'id'
  | 'project_id'
  | 'eval_id'
  | 'name'
  | 'model'
  | 'data_source'
  | 'luthier'
  | 'metadata'
  | 'items_sha256'
  | 'few_shot_sha256'
  | 'job_id'
  | 'step'
  | 'merge_id'
  | 'candidate'
  | 'root'
>

export async function insertEvalRun(tx: Db, run: NewEvalRun): Promise<EvalRun> {
  const { rows } = await tx.query<EvalRun>(
    `insert into eval_runs (id, project_id, eval_id, name, model, data_source, luthier, metadata,
                            items_sha256, few_shot_sha256, job_id, step, merge_id, candidate, root)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
     returning *`,
    [
      run.id,
      run.project_id,
      run.eval_id,
      run.name,
      run.model,
      JSON.stringify(run.data_source),
      run.luthier,
      run.metadata,
      run.items_sha256,
      run.few_shot_sha256,
      run.job_id,
      run.step,
      run.merge_id,
      run.candidate,
      run.root,
    ],
  )
  return rows[0]!
}

export async function findEvalRun(
  db: Db,
  project_id: string,
  id: string,
): Promise<EvalRun | undefined> {
  const { rows } = await db.query<EvalRun>(
    'select * from eval_runs where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** The run that was made for a checkpoint. */
export async function findRunOfStep(
  db: Db,
  job_id: string,
  step: number,
): Promise<EvalRun | undefined> {
  const { rows } = await db.query<EvalRun>(
    'select * from eval_runs where job_id = $1 and step = $2',
    [job_id, step],
  )
  return rows[0]
}

/** The run that was made for a candidate of a search. */
export async function findRunOfCandidate(
  db: Db,
  merge_id: string,
  candidate: number,
): Promise<EvalRun | undefined> {
  const { rows } = await db.query<EvalRun>(
    'select * from eval_runs where merge_id = $1 and candidate = $2',
    [merge_id, candidate],
  )
  return rows[0]
}

/** Ids of the runs of a search that are there. */
export async function runsOfMerge(db: Db, merge_id: string): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>('select id from eval_runs where merge_id = $1', [
    merge_id,
  ])
  return rows.map(({ id }) => id)
}

/** With all that they found. */
export async function deleteRunsOfMerge(tx: Db, merge_id: string): Promise<void> {
  await tx.query('delete from eval_runs where merge_id = $1', [merge_id])
}

/** The newest run of the eval that samples a model: what it ran over can be run over again. */
export async function findNewestSampling(db: Db, eval_id: string): Promise<EvalRun | undefined> {
  const { rows } = await db.query<EvalRun>(
    `select * from eval_runs where eval_id = $1 and model is not null and job_id is null and merge_id is null
      order by seq desc limit 1`,
    [eval_id],
  )
  return rows[0]
}

/** By their ids; those that are not there are left out. */
export async function runsByIds(db: Db, ids: readonly string[]): Promise<Map<string, EvalRun>> {
  const { rows } = await db.query<EvalRun>('select * from eval_runs where id = any ($1)', [ids])
  return new Map(rows.map((run) => [run.id, run]))
}

/** Runs of a model over these rows that have not gone wrong, those that have ended first. */
export async function findRunsOver(
  db: Db,
  eval_id: string,
  {
    model,
    items_sha256,
    few_shot_sha256,
  }: { model: string; items_sha256: string; few_shot_sha256: string | null },
): Promise<EvalRun[]> {
  const { rows } = await db.query<EvalRun>(
    `select * from eval_runs
      where eval_id = $1 and model = $2 and items_sha256 = $3
        and few_shot_sha256 is not distinct from $4
        and status in ('queued', 'in_progress', 'completed')
      order by status = 'completed' desc, seq desc`,
    [eval_id, model, items_sha256, few_shot_sha256],
  )
  return rows
}

export interface RunQuery {
  eval_id: string
  after?: string | undefined
  limit: number
  order: 'asc' | 'desc'
  status?: EvalRunStatus | undefined
}

export async function listEvalRuns(db: Db, query: RunQuery): Promise<EvalRun[]> {
  const [is, order] = query.order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  const { rows } = await db.query<EvalRun>(
    `select * from eval_runs
      where eval_id = $1
        and ($2::text is null or seq ${is} (select seq from eval_runs where eval_id = $1 and id = $2))
        and ($3::text is null or status = $3)
      order by seq ${order}
      limit $4`,
    [query.eval_id, query.after ?? null, query.status ?? null, query.limit],
  )
  return rows
}

/** Ids and rows of all runs of an eval. */
export async function runsOfEval(
  db: Db,
  eval_id: string,
): Promise<Pick<EvalRun, 'id' | 'items_sha256' | 'few_shot_sha256'>[]> {
  const { rows } = await db.query(
    'select id, items_sha256, few_shot_sha256 from eval_runs where eval_id = $1',
    [eval_id],
  )
  return rows
}

/** Sums of several runs, by their ids. */
export async function sumsOfRuns(db: Db, ids: readonly string[]): Promise<Map<string, RunSums>> {
  const sums = new Map(ids.map((id) => [id, { criteria: [], usage: [] } as RunSums]))
  const criteria = await db.query<RunSums['criteria'][number] & { run_id: string }>(
    'select * from eval_run_criteria where run_id = any ($1) order by criterion',
    [ids],
  )
  for (const { run_id, ...one } of criteria.rows) sums.get(run_id)?.criteria.push(one)
  const usage = await db.query<RunSums['usage'][number] & { run_id: string }>(
    'select * from eval_run_usage where run_id = any ($1) order by model',
    [ids],
  )
  for (const { run_id, ...one } of usage.rows) sums.get(run_id)?.usage.push(one)
  return sums
}

/** Begins, or goes on; undefined where it has ended. */
export async function startEvalRun(tx: Db, id: string): Promise<EvalRun | undefined> {
  const { rows } = await tx.query<EvalRun>(
    `update eval_runs set status = 'in_progress'
      where id = $1 and status in ('queued', 'in_progress')
      returning *`,
    [id],
  )
  return rows[0]
}

export const setRunTotal = async (tx: Db, id: string, total: number): Promise<void> => {
  await tx.query('update eval_runs set total = $2 where id = $1', [id, total])
}

export const setRunFewShot = async (tx: Db, id: string, few_shot: FewShot): Promise<void> => {
  await tx.query('update eval_runs set few_shot = $2 where id = $1', [id, JSON.stringify(few_shot)])
}

/** Ends the run; undefined where it had ended before. */
export async function endEvalRun(
  tx: Db,
  id: string,
  status: 'completed' | 'failed' | 'canceled',
  error: EvalRun['error'] = null,
): Promise<EvalRun | undefined> {
  const { rows } = await tx.query<EvalRun>(
    `update eval_runs set status = $2, error = $3, finished_at = now()
      where id = $1 and status in ('queued', 'in_progress')
      returning *`,
    [id, status, error],
  )
  return rows[0]
}

/** With all that it found. */
export async function deleteEvalRun(
  tx: Db,
  project_id: string,
  id: string,
): Promise<EvalRun | undefined> {
  const { rows } = await tx.query<EvalRun>(
    'delete from eval_runs where project_id = $1 and id = $2 returning *',
    [project_id, id],
  )
  return rows[0]
}

/** The last run that this model, or the checkpoint that bears its name now, came to the end of. */
export async function findLatestRun(
  db: Db,
  project_id: string,
  model: string,
): Promise<(EvalRun & { eval_name: string }) | undefined> {
  const { rows } = await db.query<EvalRun & { eval_name: string }>(
    `select r.*, e.name as eval_name
       from eval_runs r join evals e on e.id = r.eval_id
      where r.project_id = $1 and r.status = 'completed'
        and (r.model = $2
             or (r.job_id, r.step) in (select job_id, step_number from fine_tuning_checkpoints
                                        where project_id = $1 and fine_tuned_model_checkpoint = $2))
      order by r.finished_at desc, r.seq desc
      limit 1`,
    [project_id, model],
  )
  return rows[0]
}
