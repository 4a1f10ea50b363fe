// The eval of a job's checkpoints: found when the job is asked for, scored at each epoch's end.

import { methodOf } from '../../engine/train/methods/index.ts'
import { invalidRequest } from '../../errors.ts'
import { findNewestSampling, type RunSums } from '../db/eval-runs.ts'
import { findEval } from '../db/evals.ts'
import type { Db } from '../db/pool.ts'
import type { JobMethod } from './hyperparameters.ts'

/** How checkpoints are asked; over rows that are pinned with the job. */
export interface CheckpointEval {
  eval_id: string
  /** As in a run, without a model. */
  data_source: Record<string, unknown>
}

/** What one epoch's end came to. */
export interface EvalScore {
  step: number
  run_id: string
  /** Mean over rows of the mean over criteria; a row without a grade counts as 0. */
  eval_score: number
  /** Of rows that passed every criterion. */
  eval_pass_rate: number
}

const param = 'luthier.publish.eval'

/** The eval that a job names: it goes over what its newest run of a model went over. Throws where there is none. */
export async function resolveCheckpointEval(
  db: Db,
  { project_id, id, method }: { project_id: string; id: string; method: JobMethod },
): Promise<CheckpointEval & { items_sha256: string }> {
  if (methodOf(method.type).name === 'embedding')
    throw invalidRequest(
      "A model of the method 'embedding' answers nothing that an eval could grade.",
      { param, code: 'unsupported_value' },
    )
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
): Pick<EvalScore, 'eval_score' | 'eval_pass_rate'> {
  const rows = Math.max(1, total ?? 0)
  const sum = criteria.reduce((all, { score_sum }) => all + score_sum, 0)
  return {
    eval_score: sum / rows / Math.max(1, criteria.length),
    eval_pass_rate: passed / rows,
  }
}
