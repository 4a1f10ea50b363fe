// The table `fine_tuning_sweeps`.

import type { JobError } from '../jobs/file-errors.ts'
import type { CreateJob } from '../jobs/requested.ts'
import type { Point, Search } from '../sweeps/halving.ts'
import type { Db } from './pool.ts'

export interface Trial {
  job_id: string
  hyperparameters: Point
  /** What it had come to when trials were compared. */
  rungs: { step: number; valid_loss: number | null }[]
  /** It does not go on. */
  dropped: boolean
}

export interface Sweep {
  id: string
  project_id: string
  organization_id: string
  status: 'running' | 'succeeded' | 'failed' | 'cancelled'
  job: CreateJob
  search: Search
  budget_steps: number | null
  max_trials: number
  seed: number
  trials: Trial[]
  /** How many comparisons there have been. */
  rung: number
  winner: string | null
  error: JobError | null
  created_at: Date
  finished_at: Date | null
}

export type NewSweep = Pick<
  Sweep,
  | 'id'
  | 'project_id'
  | 'organization_id'
  | 'job'
  | 'search'
  | 'budget_steps'
  | 'max_trials'
  | 'seed'
>

/** Its work must be there already. */
export async function insertSweep(tx: Db, sweep: NewSweep): Promise<Sweep> {
  const { rows } = await tx.query<Sweep>(
    `insert into fine_tuning_sweeps
       (id, project_id, organization_id, status, job, search, budget_steps, max_trials, seed)
     values ($1, $2, $3, 'running', $4, $5, $6, $7, $8)
     returning *`,
    [
      sweep.id,
      sweep.project_id,
      sweep.organization_id,
      JSON.stringify(sweep.job),
      JSON.stringify(sweep.search),
      sweep.budget_steps,
      sweep.max_trials,
      sweep.seed,
    ],
  )
  return rows[0]!
}

export async function findSweep(
  db: Db,
  project_id: string,
  id: string,
): Promise<Sweep | undefined> {
  const { rows } = await db.query<Sweep>(
    'select * from fine_tuning_sweeps where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** Newest first, older than the sweep `after`. */
export async function listSweeps(
  db: Db,
  query: { project_id: string; after?: string | undefined; limit: number },
): Promise<Sweep[]> {
  const { rows } = await db.query<Sweep>(
    `select * from fine_tuning_sweeps
      where project_id = $1
        and ($2::text is null
             or seq < (select seq from fine_tuning_sweeps where project_id = $1 and id = $2))
      order by seq desc
      limit $3`,
    [query.project_id, query.after ?? null, query.limit],
  )
  return rows
}

/** What the holder of its work has found. */
export async function setTrials(
  tx: Db,
  id: string,
  { trials, rung }: Pick<Sweep, 'trials' | 'rung'>,
): Promise<void> {
  await tx.query('update fine_tuning_sweeps set trials = $2, rung = $3 where id = $1', [
    id,
    JSON.stringify(trials),
    rung,
  ])
}

/** Ends it; undefined where it has ended before. */
export async function endSweep(
  tx: Db,
  id: string,
  end: {
    status: Exclude<Sweep['status'], 'running'>
    winner?: string | undefined
    error?: JobError | undefined
  },
): Promise<Sweep | undefined> {
  const { rows } = await tx.query<Sweep>(
    `update fine_tuning_sweeps
        set status = $2, winner = $3, error = $4, finished_at = now()
      where id = $1 and status = 'running'
      returning *`,
    [id, end.status, end.winner ?? null, end.error ? JSON.stringify(end.error) : null],
  )
  return rows[0]
}

/** The slug that names of tuned models carry. */
export async function organizationSlug(db: Db, organization_id: string): Promise<string> {
  const { rows } = await db.query<{ slug: string }>(
    'select slug from organizations where id = $1',
    [organization_id],
  )
  return rows[0]!.slug
}
