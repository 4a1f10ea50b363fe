// The eval of one checkpoint: a run of its own, which another worker does; the job waits for it.

import { setTimeout as sleep } from 'node:timers/promises'
import { invalidRequest } from '../../errors.ts'
import {
  type EvalRun,
  endEvalRun,
  findEvalRun,
  findRunOfStep,
  sumsOfRuns,
} from '../db/eval-runs.ts'
import { findEval } from '../db/evals.ts'
import { findCheckpointAt } from '../db/fine-tuning-checkpoints.ts'
import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'
import { type Pool, transaction } from '../db/pool.ts'
import { cancelWork, type Lease } from '../db/work.ts'
import type { DataSource } from '../evals/data.ts'
import { CHECKPOINT_EVAL_RUN, newRun, writeRun } from '../evals/runs.ts'
import { type EvalScore, scoreOf } from '../jobs/checkpoint-evals.ts'
import { whileHeld } from '../work/held.ts'
import { Hopeless, patiently } from '../work/patience.ts'

const POLL_MS = 250

/** The step of the epoch's end that the job's state is at and that has no score yet. */
export function unscoredStep(job: FineTuningJob): number | undefined {
  const { plan, state_step, eval_scores } = job
  if (!job.eval || !plan || state_step === null || state_step === 0) return undefined
  const isEpochEnd = state_step % (plan.total_steps / plan.n_epochs) === 0
  return isEpochEnd && !eval_scores.some(({ step }) => step === state_step) ? state_step : undefined
}

/**
 * Runs the job's eval over the checkpoint of this step, or goes on with the run that there is. Undefined where nothing
 * was saved at the step: it was stopped before. Throws ApiError where the run goes wrong, and what `signal` says.
 */
export async function scoreCheckpoint(
  db: Pool,
  {
    job,
    step,
    lease,
    signal,
  }: { job: FineTuningJob; step: number; lease: Lease; signal: AbortSignal },
): Promise<EvalScore | undefined> {
  const checkpoint = await patiently(() => findCheckpointAt(db, job.id, step))
  if (!checkpoint) return undefined
  const { id } = await startRun(db, {
    job,
    step,
    lease,
    model: checkpoint.fine_tuned_model_checkpoint,
  })
  for (;;) {
    signal.throwIfAborted()
    const run = await patiently(() => findEvalRun(db, job.project_id, id))
    if (!run) throw evalFailed(job, step, 'its run was deleted')
    if (run.status === 'completed') {
      const sums = (await patiently(() => sumsOfRuns(db, [id]))).get(id)
      return { step, run_id: id, ...scoreOf(run, sums?.criteria ?? []) }
    }
    if (run.status === 'failed' || run.status === 'canceled')
      throw evalFailed(job, step, run.error?.message ?? `its run ${id} was canceled`)
    await sleep(POLL_MS, undefined, { signal })
  }
}

async function startRun(
  db: Pool,
  { job, step, lease, model }: { job: FineTuningJob; step: number; lease: Lease; model: string },
): Promise<Pick<EvalRun, 'id'>> {
  const { eval: wanted, eval_items_sha256: items_sha256 } = job
  if (!wanted || items_sha256 === null)
    throw new Hopeless(`The job ${job.id} has an eval to run but no rows for it.`)
  return whileHeld(db, lease, async (tx) => {
    const known = await findRunOfStep(tx, job.id, step)
    if (known) return known
    const one = await findEval(tx, job.project_id, wanted.eval_id)
    if (!one) throw evalFailed(job, step, `the eval ${wanted.eval_id} was deleted`)
    const data_source = { ...wanted.data_source, model } as unknown as DataSource
    const run = newRun(one, { name: `${job.id}, step ${step}`, data_source })
    const pinned = { items_sha256, few_shot_sha256: null, job_id: job.id, step }
    return writeRun(tx, { ...run, ...pinned }, CHECKPOINT_EVAL_RUN)
  })
}

/** Ends the run of a job that has been cancelled. */
export async function cancelRunOfStep(db: Pool, job_id: string, step: number): Promise<void> {
  const run = await findRunOfStep(db, job_id, step)
  if (!run) return
  await transaction(db, async (tx) => {
    await cancelWork(tx, run.id)
    await endEvalRun(tx, run.id, 'canceled')
  })
}

const evalFailed = (job: FineTuningJob, step: number, why: string) =>
  invalidRequest(
    `The checkpoint of step ${step} could not be evaluated, so that none can be chosen by it: ${why}. All checkpoints of ${job.id} stay, under their own names.`,
    { param: 'luthier.publish.eval', code: 'eval_failed' },
  )
