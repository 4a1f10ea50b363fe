// The table `fine_tuning_checkpoints`: saved points of a job, usable as models until their names end.

import type { StoredAdapter } from '../models/model.ts'
import type { Db } from './pool.ts'

export interface FineTuningCheckpoint {
  id: string
  project_id: string
  job_id: string
  step_number: number
  fine_tuned_model_checkpoint: string
  metrics: Record<string, number>
  /** Of the epochs' ends only the last are kept. */
  made_by: 'epoch' | 'pause'
  /** Null once the name has ended. */
  adapter_sha256: string | null
  adapter_config_sha256: string | null
  created_at: Date
}

export type NewFineTuningCheckpoint = Omit<
  FineTuningCheckpoint,
  'created_at' | 'adapter_sha256' | 'adapter_config_sha256'
> & { adapter: StoredAdapter }

/** Keeps it, unless that step was saved before: then it is the same adapter, and a pause keeps it for good. */
export async function insertCheckpoint(tx: Db, checkpoint: NewFineTuningCheckpoint): Promise<void> {
  await tx.query(
    `insert into fine_tuning_checkpoints
       (id, project_id, job_id, step_number, fine_tuned_model_checkpoint, metrics,
        adapter_sha256, adapter_config_sha256, made_by)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     on conflict (job_id, step_number) do update set made_by = 'pause'
           where excluded.made_by = 'pause'`,
    [
      checkpoint.id,
      checkpoint.project_id,
      checkpoint.job_id,
      checkpoint.step_number,
      checkpoint.fine_tuned_model_checkpoint,
      JSON.stringify(checkpoint.metrics),
      checkpoint.adapter.sha256,
      checkpoint.adapter.config_sha256,
      checkpoint.made_by,
    ],
  )
}

/** What says which checkpoint is best. */
export type BestBy = 'full_valid_loss' | 'eval_score'

/** Of those that still have an adapter, the first of lowest validation loss, or of highest score. */
const best = (by: BestBy) =>
  `select step_number from fine_tuning_checkpoints
    where job_id = $1 and adapter_sha256 is not null and metrics ? '${by}'
    order by (metrics->>'${by}')::float8 ${by === 'eval_score' ? 'desc' : 'asc'}, step_number
    limit 1`

/** Removes all epochs' ends but the newest `count`, and the best where that is kept too; returns what was removed. */
export async function pruneCheckpoints(
  tx: Db,
  job_id: string,
  keep: { count: number; best: BestBy | undefined },
): Promise<FineTuningCheckpoint[]> {
  const { rows } = await tx.query<FineTuningCheckpoint>(
    `with gone as (
       delete from fine_tuning_checkpoints
        where job_id = $1 and made_by = 'epoch'
          and step_number not in (select step_number from fine_tuning_checkpoints
                                   where job_id = $1 and made_by = 'epoch'
                                   order by step_number desc limit $2)
          and not ($3 and step_number in (${best(keep.best ?? 'full_valid_loss')}))
       returning *
     ), ended as (
       insert into ended_cursors (list_id, id, created_at, step_number)
       select job_id, id, created_at, step_number from gone
     )
     select * from gone`,
    [job_id, keep.count, keep.best !== undefined],
  )
  return rows
}

/** What was saved at that step. */
export async function findCheckpointAt(
  db: Db,
  job_id: string,
  step_number: number,
): Promise<FineTuningCheckpoint | undefined> {
  const { rows } = await db.query<FineTuningCheckpoint>(
    'select * from fine_tuning_checkpoints where job_id = $1 and step_number = $2',
    [job_id, step_number],
  )
  return rows[0]
}

/** Undefined where none was measured. */
export async function findBestCheckpoint(
  db: Db,
  job_id: string,
  by: BestBy,
): Promise<FineTuningCheckpoint | undefined> {
  const { rows } = await db.query<FineTuningCheckpoint>(
    `select * from fine_tuning_checkpoints where job_id = $1 and step_number in (${best(by)})`,
    [job_id],
  )
  return rows[0]
}

/** Adds what was measured later; nothing where the checkpoint is gone. */
export async function addMetrics(
  tx: Db,
  { job_id, step_number }: { job_id: string; step_number: number },
  metrics: Record<string, number>,
): Promise<void> {
  await tx.query(
    `update fine_tuning_checkpoints set metrics = metrics || $3::jsonb
      where job_id = $1 and step_number = $2`,
    [job_id, step_number, JSON.stringify(metrics)],
  )
}

/** From here on the checkpoint answers to this name alone. */
export async function renameCheckpoint(tx: Db, id: string, name: string): Promise<void> {
  await tx.query(
    'update fine_tuning_checkpoints set fine_tuned_model_checkpoint = $2 where id = $1',
    [id, name],
  )
}

/** Where a page may begin: at checkpoints, and where some stood until lately. */
const CURSORS = `(select step_number from fine_tuning_checkpoints where job_id = $1 and id = $2
                  union all
                  select step_number from ended_cursors where list_id = $1 and id = $2)`

/** Newest first, older than the checkpoint `after`. */
export async function listCheckpoints(
  db: Db,
  query: { job_id: string; after?: string | undefined; limit: number },
): Promise<FineTuningCheckpoint[]> {
  const { rows } = await db.query<FineTuningCheckpoint>(
    `select * from fine_tuning_checkpoints
      where job_id = $1
        and ($2::text is null
             or step_number < (select step_number from ${CURSORS} cursor limit 1))
      order by step_number desc
      limit $3`,
    [query.job_id, query.after ?? null, query.limit],
  )
  return rows
}

/** A checkpoint whose name still stands, with what its job says about where it comes from. */
export type NamedCheckpoint = FineTuningCheckpoint & {
  model: string
  root: string
  /** The organization's slug. */
  owned_by: string
  adapter_sha256: string
  adapter_config_sha256: string
}

export async function findCheckpointByName(
  db: Db,
  project_id: string,
  name: string,
): Promise<NamedCheckpoint | undefined> {
  const { rows } = await db.query<NamedCheckpoint>(
    `select c.*, j.model, j.root, o.slug as owned_by
       from fine_tuning_checkpoints c
       join fine_tuning_jobs j on j.id = c.job_id
       join organizations o on o.id = j.organization_id
      where c.project_id = $1 and fine_tuned_model_checkpoint = $2 and adapter_sha256 is not null`,
    [project_id, name],
  )
  return rows[0]
}

/** The newest that still has an adapter, of the job that makes, or made, the tuned model of this name. */
export async function findNewestCheckpoint(
  db: Db,
  project_id: string,
  model_name: string,
): Promise<NamedCheckpoint | undefined> {
  const { rows } = await db.query<NamedCheckpoint>(
    `select c.*, j.model, j.root, o.slug as owned_by
       from fine_tuning_checkpoints c
       join fine_tuning_jobs j on j.id = c.job_id
       join organizations o on o.id = j.organization_id
      where c.project_id = $1 and j.project_id = $1 and j.model_name = $2
        and adapter_sha256 is not null
      order by step_number desc
      limit 1`,
    [project_id, model_name],
  )
  return rows[0]
}

/** Ends names: of one checkpoint, or of all that a job has. The rows stay, as the job's history. */
export async function endCheckpointNames(
  tx: Db,
  which: { project_id: string; job_id: string; name?: string },
): Promise<StoredAdapter[]> {
  const { rows } = await tx.query<{ sha256: string; config_sha256: string }>(
    `with ended as (
       select id, adapter_sha256 as sha256, adapter_config_sha256 as config_sha256
         from fine_tuning_checkpoints
        where project_id = $1 and job_id = $2 and adapter_sha256 is not null
          and ($3::text is null or fine_tuned_model_checkpoint = $3)
          for update
     )
     update fine_tuning_checkpoints c set adapter_sha256 = null, adapter_config_sha256 = null
       from ended
      where c.id = ended.id
      returning ended.sha256, ended.config_sha256`,
    [which.project_id, which.job_id, which.name ?? null],
  )
  return rows
}

/** Whether the job has a checkpoint of this id, or had it lately: a page may begin there. */
export async function isCheckpointCursor(db: Db, job_id: string, id: string): Promise<boolean> {
  const { rowCount } = await db.query(`select from ${CURSORS} cursor`, [job_id, id])
  return rowCount !== 0
}
