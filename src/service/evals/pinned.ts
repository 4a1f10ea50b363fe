// An eval that other work names: asked over the rows and with the prompts of its newest run of a model, both settled
// when that work is created; and what such a run came to.

import { invalidRequest } from '../../errors.ts'
import { findNewestSampling, type RunSums } from '../db/eval-runs.ts'
import { findEval, type PinnedEval } from '../db/evals.ts'
import type { Db } from '../db/pool.ts'

/** What a run came to. */
export interface RunScore {
  run_id: string
  /** Mean over rows of the mean over criteria; a row without a grade counts as 0. */
  eval_score: number
  /** Of rows that passed every criterion. */
  eval_pass_rate: number
}

/** The eval that the field `param` names, and its rows. Throws where there is none, or nothing to run it on. */
export async function pinEval(
  db: Db,
  { project_id, id, param }: { project_id: string; id: string; param: string },
): Promise<PinnedEval & { items_sha256: string }> {
  const one = await findEval(db, project_id, id)
  if (!one)
    throw invalidRequest(`The eval \`${id}\` does not exist.`, { param, code: 'invalid_eval' })
  const newest = await findNewestSampling(db, one.id)
  if (!newest)
    throw invalidRequest(
      `The eval \`${id}\` has no run of a model yet whose rows and prompts could be taken: run it over the base model first.`,
      { param, code: 'invalid_eval' },
    )
  const { model: _, ...data_source } = newest.data_source
  return { eval_id: one.id, data_source, items_sha256: newest.items_sha256 }
}

/** What a run's counts come to. */
export function scoreOf(
  { total, passed }: { total: number | null; passed: number },
  criteria: RunSums['criteria'],
): Omit<RunScore, 'run_id'> {
  const rows = Math.max(1, total ?? 0)
  const sum = criteria.reduce((all, { score_sum }) => all + score_sum, 0)
  return {
    eval_score: sum / rows / Math.max(1, criteria.length),
    eval_pass_rate: passed / rows,
  }
}
