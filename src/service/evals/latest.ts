// What a model came to when it was last held against an eval.

import { type Estimate, passRate } from '../../engine/eval/statistics.ts'
import { findLatestRun, sumsOfRuns } from '../db/eval-runs.ts'
import type { Db } from '../db/pool.ts'

export interface LatestEval {
  eval_id: string
  eval_name: string
  run_id: string
  finished_at: Date
  rows: number
  /** Of examples before each prompt. */
  examples: number
  pass_rate: Estimate
  criteria: { name: string; pass_rate: number; mean_score: number }[]
}

/** Undefined for a model that no run has asked to its end. */
export async function latestEval(
  db: Db,
  project_id: string,
  model: string,
): Promise<LatestEval | undefined> {
  const run = await findLatestRun(db, project_id, model)
  if (!run?.finished_at) return undefined
  const rows = run.passed + run.failed + run.errored
  const { criteria = [] } = (await sumsOfRuns(db, [run.id])).get(run.id) ?? {}
  return {
    eval_id: run.eval_id,
    eval_name: run.eval_name,
    run_id: run.id,
    finished_at: run.finished_at,
    rows,
    examples: run.few_shot?.examples ?? 0,
    pass_rate: passRate(run.passed, rows),
    criteria: criteria.map(({ criterion, passed, failed, score_sum }) => ({
      name: criterion,
      pass_rate: passed / Math.max(1, passed + failed),
      mean_score: score_sum / Math.max(1, passed + failed),
    })),
  }
}
