// The table `fine_tuning_steps`: what each step measured, one row a step whatever happened in between.

import type { StepMetrics } from '../../engine/train/request.ts'
import type { Db } from './pool.ts'

/** A step computed again after a crash is written over, with the same numbers. */
export async function upsertStep(tx: Db, job_id: string, metrics: StepMetrics): Promise<void> {
  await tx.query(
    `insert into fine_tuning_steps (job_id, step, metrics) values ($1, $2, $3)
     on conflict (job_id, step) do update set metrics = excluded.metrics`,
    [job_id, metrics.step, JSON.stringify(metrics)],
  )
}

/** What one step measured. */
export async function findStep(
  db: Db,
  job_id: string,
  step: number,
): Promise<StepMetrics | undefined> {
  const { rows } = await db.query<{ metrics: StepMetrics }>(
    'select metrics from fine_tuning_steps where job_id = $1 and step = $2',
    [job_id, step],
  )
  return rows[0]?.metrics
}

/** In order. */
export async function listSteps(db: Db, job_id: string): Promise<StepMetrics[]> {
  const { rows } = await db.query<{ metrics: StepMetrics }>(
    'select metrics from fine_tuning_steps where job_id = $1 order by step',
    [job_id],
  )
  return rows.map((row) => row.metrics)
}
