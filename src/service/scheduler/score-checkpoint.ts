// The eval of one checkpoint: a run of its own, which another worker does; the job waits for it.

import { invalidRequest } from '../../errors.ts'
import { type EvalRun, endEvalRun, findRunOfStep } from '../db/eval-runs.ts'
import { findCheckpointAt } from '../db/fine-tuning-checkpoints.ts'
import type { FineTuningJob } from '../db/fine-tuning-jobs.ts'
import { type Pool, transaction } from '../db/pool.ts'
import { cancelWork, type Lease } from '../db/work.ts'
import type { EvalScore } from '../jobs/checkpoint-evals.ts'
import { whileHeld } from '../work/held.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { awaitScore, startPinnedRun } from './await-score.ts'

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
  const failed = (why: string) => evalFailed(job, step, why)
  const model = checkpoint.fine_tuned_model_checkpoint
  const { id } = await startRun(db, { job, step, lease, model }, failed)
  const { project_id } = job
  return { step, ...(await awaitScore(db, { project_id, id, signal }, failed)) }
}

async function startRun(
  db: Pool,
  { job, step, lease, model }: { job: FineTuningJob; step: number; lease: Lease; model: string },
  failed: (why: string) => Error,
): Promise<Pick<EvalRun, 'id'>> {
  const { id: job_id, project_id, eval: wanted, eval_items_sha256: items_sha256 } = job
  if (!wanted || items_sha256 === null)
    throw new Hopeless(`The job ${job_id} has an eval to run but no rows for it.`)
  const pinned = { ...wanted, items_sha256 }
  const run = { project_id, pinned, model, name: `${job_id}, step ${step}`, of: { job_id, step } }
  return whileHeld(
    db,
    lease,
    async (tx) => (await findRunOfStep(tx, job_id, step)) ?? startPinnedRun(tx, run, failed),
  )
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
