// The table `merges`. Transitions are guarded in the statement, writes of a worker by its lease.

import type { JobError } from '../jobs/file-errors.ts'
import type { PinnedEval } from './evals.ts'
import type { Db } from './pool.ts'

export type MergeStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'

export interface ChosenOfSearch {
  candidate: number
  budget: number
  weights: number[]
  density?: number
  /** Mean loss a token on the validation file, where that is what it goes by. */
  loss?: number
  /** The score of the eval, where it goes by one. */
  score?: number
}

export interface Merge {
  id: string
  project_id: string
  organization_id: string
  status: MergeStatus
  /** As it was sent; a text became what it says. */
  config: Record<string, unknown>
  /** The models that it names, each as the client called it. */
  parents: string[]
  user_provided_suffix: string | null
  metadata: Record<string, string> | null
  tensors: number
  tensors_done: number
  /** Of the weights that come out. */
  bytes: number
  /** The name the model will have; `merged_model` is null until there is one. */
  model_name: string
  merged_model: string | null
  /** What its search has found best so far; null where nothing is searched. */
  chosen: ChosenOfSearch | null
  /** How its candidates are asked, where its search goes by an eval. */
  eval: PinnedEval | null
  /** Over these rows; null once the merge has ended. */
  eval_items_sha256: string | null
  error: JobError | null
  created_at: Date
  finished_at: Date | null
}

export type NewMerge = Omit<
  Merge,
  'status' | 'tensors_done' | 'merged_model' | 'chosen' | 'error' | 'created_at' | 'finished_at'
>

/** Its work must be there already. */
export async function insertMerge(tx: Db, merge: NewMerge): Promise<Merge> {
  const { rows } = await tx.query<Merge>(
    `insert into merges
       (id, project_id, organization_id, status, config, parents, user_provided_suffix, metadata,
        tensors, bytes, model_name, eval, eval_items_sha256)
     values ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $11, $12)
     returning *`,
    [
      merge.id,
      merge.project_id,
      merge.organization_id,
      JSON.stringify(merge.config),
      merge.parents,
      merge.user_provided_suffix,
      merge.metadata && JSON.stringify(merge.metadata),
      merge.tensors,
      merge.bytes,
      merge.model_name,
      merge.eval && JSON.stringify(merge.eval),
      merge.eval_items_sha256,
    ],
  )
  return rows[0]!
}

export async function findMerge(
  db: Db,
  project_id: string,
  id: string,
): Promise<Merge | undefined> {
  const { rows } = await db.query<Merge>('select * from merges where project_id = $1 and id = $2', [
    project_id,
    id,
  ])
  return rows[0]
}

/** Newest first, older than the merge `after`. */
export async function listMerges(
  db: Db,
  query: { project_id: string; after?: string | undefined; limit: number },
): Promise<Merge[]> {
  const { rows } = await db.query<Merge>(
    `select * from merges
      where project_id = $1
        and ($2::text is null
             or seq < (select seq from merges where project_id = $1 and id = $2))
      order by seq desc
      limit $3`,
    [query.project_id, query.after ?? null, query.limit],
  )
  return rows
}

/** How far the holder of its work has come. */
export async function setMerged(tx: Db, id: string, tensors_done: number): Promise<void> {
  await tx.query(
    `update merges set status = 'running', tensors_done = $2
      where id = $1 and finished_at is null`,
    [id, tensors_done],
  )
}

/** The best candidate of its search so far. */
export async function setChosen(tx: Db, id: string, chosen: ChosenOfSearch): Promise<void> {
  await tx.query('update merges set chosen = $2 where id = $1 and finished_at is null', [
    id,
    JSON.stringify(chosen),
  ])
}

/** Lets go of the rows of its eval; undefined where it has none. */
export async function unpinEvalRows(tx: Db, id: string): Promise<string | undefined> {
  const { rows } = await tx.query<{ sha256: string }>(
    `update merges m set eval_items_sha256 = null
       from (select id, eval_items_sha256 as sha256 from merges where id = $1 for update) before
      where m.id = before.id and before.sha256 is not null
      returning before.sha256`,
    [id],
  )
  return rows[0]?.sha256
}

/** Ends it; undefined where it has ended before. */
export async function endMerge(
  tx: Db,
  id: string,
  end: { status: 'succeeded' } | { status: 'cancelled' } | { status: 'failed'; error: JobError },
): Promise<Merge | undefined> {
  const { rows } = await tx.query<Merge>(
    `update merges
        set status = $2, finished_at = now(), error = $3,
            merged_model = case when $2 = 'succeeded' then model_name end,
            tensors_done = case when $2 = 'succeeded' then tensors else tensors_done end
      where id = $1 and finished_at is null
      returning *`,
    [id, end.status, end.status === 'failed' ? JSON.stringify(end.error) : null],
  )
  return rows[0]
}
