// The table `fine_tuning_jobs`. Transitions are guarded in the statement, writes of a worker by its lease.

import type { PreflightReport } from '../../engine/train/preflight-report.ts'
import type { LoraOptions, Plan } from '../../engine/train/request.ts'
import type { EvalScore } from '../jobs/checkpoint-evals.ts'
import type { JobExtension } from '../jobs/extension.ts'
import type { JobError } from '../jobs/file-errors.ts'
import type { JobMethod } from '../jobs/hyperparameters.ts'
import {
  isTerminal,
  type JobChange,
  type JobStatus,
  statesBefore,
  statusAfter,
} from '../jobs/states.ts'
import type { StoredAdapter } from '../models/model.ts'
import type { PinnedEval } from './evals.ts'
import type { Db } from './pool.ts'

/** The adapter that a job goes on from. */
export interface InitialAdapter extends StoredAdapter {
  /** The tuned model or checkpoint, as the client called it. */
  model: string
  /** Its rank, scale and targets: the job's own must be the same. */
  lora: LoraOptions
}

export interface FineTuningJob {
  id: string
  seq: number
  project_id: string
  organization_id: string
  /** As the client sent it. */
  model: string
  /** The base model it stands for. */
  root: string
  /** Null: a fresh adapter. */
  initial: InitialAdapter | null
  user_provided_suffix: string | null
  seed: number
  status: JobStatus
  /** As the client sent it, `auto` filled in for what it left out. */
  method: JobMethod
  plan: Plan | null
  training_file: string
  validation_file: string | null
  training_sha256: string
  validation_sha256: string | null
  metadata: Record<string, string> | null
  /** As the client sent it. */
  luthier: JobExtension | null
  /** Bytes of `luthier.data.reference_file`. */
  reference_sha256: string | null
  /** What `luthier.publish.eval` names: how its checkpoints are asked, and over which rows. */
  eval: PinnedEval | null
  eval_items_sha256: string | null
  /** What each epoch's end came to, in order. */
  eval_scores: EvalScore[]
  /** What its files were found to be like. */
  preflight: PreflightReport | null
  error: JobError | null
  /** The name the model will have; `fine_tuned_model` is null until there is one. */
  model_name: string
  fine_tuned_model: string | null
  result_files: string[]
  trained_tokens: number | null
  estimated_finish: Date | null
  state_sha256: string | null
  state_step: number | null
  /** It pauses after this share of its steps; null: it goes on to its end. */
  pause_share: number | null
  /** Objects that the job referred to and that are still to be released. */
  superseded: string[]
  created_at: Date
  finished_at: Date | null
}

export type NewFineTuningJob = Pick<
  FineTuningJob,
  | 'id'
  | 'project_id'
  | 'organization_id'
  | 'model'
  | 'root'
  | 'initial'
  | 'user_provided_suffix'
  | 'seed'
  | 'method'
  | 'training_file'
  | 'validation_file'
  | 'training_sha256'
  | 'validation_sha256'
  | 'metadata'
  | 'luthier'
  | 'reference_sha256'
  | 'eval'
  | 'eval_items_sha256'
  | 'model_name'
>

/** Its work must be there already. */
export async function insertJob(tx: Db, job: NewFineTuningJob): Promise<FineTuningJob> {
  const { rows } = await tx.query<FineTuningJob>(
    `insert into fine_tuning_jobs
       (id, project_id, organization_id, model, root, user_provided_suffix, seed, status, method,
        training_file, validation_file, training_sha256, validation_sha256, metadata, model_name,
        training_pin, validation_pin, initial, initial_pin, initial_config_pin,
        luthier, reference_sha256, reference_pin, eval, eval_items_sha256, eval_pin)
     values ($1, $2, $3, $4, $5, $6, $7, 'validating_files', $8, $9, $10, $11, $12, $13, $14,
        $11, $12, $15, $16, $17, $18, $19, $19, $20, $21, $21)
     returning *`,
    [
      job.id,
      job.project_id,
      job.organization_id,
      job.model,
      job.root,
      job.user_provided_suffix,
      job.seed,
      JSON.stringify(job.method),
      job.training_file,
      job.validation_file,
      job.training_sha256,
      job.validation_sha256,
      job.metadata && JSON.stringify(job.metadata),
      job.model_name,
      job.initial && JSON.stringify(job.initial),
      job.initial?.sha256 ?? null,
      job.initial?.config_sha256 ?? null,
      job.luthier && JSON.stringify(job.luthier),
      job.reference_sha256,
      job.eval && JSON.stringify(job.eval),
      job.eval_items_sha256,
    ],
  )
  return rows[0]!
}

/** The job, if it is this project's. */
export async function findJob(
  db: Db,
  project_id: string,
  id: string,
): Promise<FineTuningJob | undefined> {
  const { rows } = await db.query<FineTuningJob>(
    'select * from fine_tuning_jobs where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** The job's status, which nobody changes until the transaction ends. */
export async function holdJob(tx: Db, id: string): Promise<Pick<FineTuningJob, 'status'>> {
  const { rows } = await tx.query<Pick<FineTuningJob, 'status'>>(
    'select status from fine_tuning_jobs where id = $1 for no key update',
    [id],
  )
  return rows[0]!
}

/** `null` asks for jobs without metadata, pairs for jobs that have them all. */
export type MetadataFilter = Record<string, string> | null | undefined

/** Newest first, older than the job `after`. */
export async function listJobs(
  db: Db,
  query: {
    project_id: string
    after?: string | undefined
    limit: number
    metadata?: MetadataFilter
  },
): Promise<FineTuningJob[]> {
  const { rows } = await db.query<FineTuningJob>(
    `select * from fine_tuning_jobs
      where project_id = $1
        and ($2::text is null
             or seq < (select seq from fine_tuning_jobs where project_id = $1 and id = $2))
        and ($3::jsonb is null or metadata @> $3)
        and (not $4 or metadata is null or metadata = '{}')
      order by seq desc
      limit $5`,
    [
      query.project_id,
      query.after ?? null,
      query.metadata ? JSON.stringify(query.metadata) : null,
      query.metadata === null,
      query.limit,
    ],
  )
  return rows
}

/**
 * Moves a job along one arrow; undefined where its status has no such arrow. With its end it lets go of its files'
 * bytes, which become superseded.
 */
export async function changeJob(
  tx: Db,
  id: string,
  change: JobChange,
): Promise<FineTuningJob | undefined> {
  const status = statusAfter(change)
  const { rows } = await tx.query<FineTuningJob>(
    isTerminal(status)
      ? `update fine_tuning_jobs
            set status = $2, estimated_finish = null, finished_at = now(),
                superseded = superseded
                  || array_remove(array[training_pin, validation_pin, state_sha256,
                                        initial_pin, initial_config_pin, reference_pin, eval_pin],
                                  null),
                training_pin = null, validation_pin = null, state_sha256 = null, state_step = null,
                initial_pin = null, initial_config_pin = null, reference_pin = null,
                eval_pin = null
          where id = $1 and status = any ($3)
          returning *`
      : `update fine_tuning_jobs
            set status = $2, estimated_finish = null
          where id = $1 and status = any ($3)
          returning *`,
    [id, status, statesBefore(change)],
  )
  return rows[0]
}

/** What could be chosen otherwise on another day is chosen once: a second plan does not replace the first. */
export async function setPlan(tx: Db, id: string, plan: Plan): Promise<void> {
  await tx.query('update fine_tuning_jobs set plan = $2 where id = $1 and plan is null', [
    id,
    JSON.stringify(plan),
  ])
}

/** What the files were found to be like; it is found out anew where the job was interrupted meanwhile. */
export async function setPreflight(tx: Db, id: string, report: PreflightReport): Promise<void> {
  await tx.query('update fine_tuning_jobs set preflight = $2 where id = $1', [
    id,
    JSON.stringify(report),
  ])
}

/** Replaces the plan's `precision: auto`, once, and adds the reason to the others. */
export async function setPrecision(
  tx: Db,
  id: string,
  { precision, reason }: { precision: Plan['precision']; reason: string },
): Promise<void> {
  await tx.query(
    `update fine_tuning_jobs
     set plan = plan || jsonb_build_object('precision', $2::text, 'reasons', plan->'reasons' || to_jsonb($3::text))
     where id = $1 and plan->>'precision' = 'auto'`,
    [id, precision, reason],
  )
}

export async function setEstimatedFinish(tx: Db, id: string, at: Date): Promise<void> {
  await tx.query('update fine_tuning_jobs set estimated_finish = $2 where id = $1', [id, at])
}

/** Names the state to resume from, stored already; the one before becomes superseded. */
export async function setState(
  tx: Db,
  id: string,
  state: { sha256: string; step: number },
): Promise<void> {
  await tx.query(
    `update fine_tuning_jobs
        set state_sha256 = $2, state_step = $3,
            superseded = case when state_sha256 is null or state_sha256 = $2 then superseded
                              else superseded || state_sha256 end
      where id = $1`,
    [id, state.sha256, state.step],
  )
}

/** Adds what an epoch's end came to, unless it is known. */
export async function addEvalScore(tx: Db, id: string, score: EvalScore): Promise<void> {
  await tx.query(
    `update fine_tuning_jobs set eval_scores = eval_scores || jsonb_build_array($2::jsonb)
      where id = $1 and not eval_scores @> jsonb_build_array(jsonb_build_object('step', $3::integer))`,
    [id, JSON.stringify(score), score.step],
  )
}

/** Notes objects that nothing of the job refers to any more. */
export async function addSuperseded(tx: Db, id: string, sha256s: string[]): Promise<void> {
  if (sha256s.length === 0) return
  await tx.query(
    'update fine_tuning_jobs set superseded = superseded || $2::text[] where id = $1',
    [id, sha256s],
  )
}

/** What is still to be released. */
export async function listSuperseded(db: Db, id: string): Promise<string[]> {
  const { rows } = await db.query<{ superseded: string[] }>(
    'select superseded from fine_tuning_jobs where id = $1',
    [id],
  )
  return [...new Set(rows[0]?.superseded)]
}

/** The jobs of a project that have not ended, the oldest first. */
export async function listUnended(
  db: Db,
  project_id: string,
): Promise<Array<{ id: string; project_id: string }>> {
  const { rows } = await db.query<{ id: string; project_id: string }>(
    `select id, project_id from fine_tuning_jobs
      where project_id = $1 and status = any ($2) order by seq`,
    [project_id, statesBefore('cancelled')],
  )
  return rows
}

/** Jobs that have ended and still have something to be released. */
export async function listUnreleased(db: Db): Promise<Array<{ id: string; project_id: string }>> {
  const { rows } = await db.query<{ id: string; project_id: string }>(
    `select id, project_id from fine_tuning_jobs
      where superseded <> '{}' and finished_at is not null`,
  )
  return rows
}

/** It is released. */
export async function removeSuperseded(db: Db, id: string, sha256: string): Promise<void> {
  await db.query(
    'update fine_tuning_jobs set superseded = array_remove(superseded, $2) where id = $1',
    [id, sha256],
  )
}

/** Where the job pauses by itself. */
export async function setPauseShare(tx: Db, id: string, share: number | null): Promise<void> {
  await tx.query('update fine_tuning_jobs set pause_share = $2 where id = $1', [id, share])
}

export async function setError(tx: Db, id: string, error: JobError): Promise<void> {
  await tx.query('update fine_tuning_jobs set error = $2 where id = $1', [
    id,
    JSON.stringify(error),
  ])
}

export async function setResult(
  tx: Db,
  id: string,
  result: { fine_tuned_model: string; result_files: string[]; trained_tokens: number },
): Promise<void> {
  await tx.query(
    `update fine_tuning_jobs
        set fine_tuned_model = $2, result_files = $3, trained_tokens = $4
      where id = $1`,
    [id, result.fine_tuned_model, result.result_files, result.trained_tokens],
  )
}

/** How many jobs of all projects have which status. */
export async function jobsByStatus(db: Db): Promise<{ status: string; n: number }[]> {
  const { rows } = await db.query<{ status: string; n: number }>(
    'select status, count(*) as n from fine_tuning_jobs group by status',
  )
  return rows
}
