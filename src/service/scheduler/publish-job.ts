// After training: the checkpoint that becomes the model, if it will be served as it was trained.

import type { Evidence, Verdict } from '../../engine/parity/parity.ts'
import type { EvidenceRequest, TrainEvent, TrainRequest } from '../../engine/train/request.ts'
import type { JobFailure } from '../jobs/file-errors.ts'
import type { Progress, Uncompared } from '../jobs/progress.ts'
import { parityFailure } from '../jobs/publishing.ts'
import type { ResolvedModel } from '../models/model.ts'
import { patiently } from '../work/patience.ts'
import type { RunJobDeps } from './run-job.ts'
import { ask, type TrainingThread } from './training-thread.ts'

type PublishDeps = Pick<RunJobDeps, 'adapterFile' | 'serving' | 'log'>

interface Trained {
  progress: Progress
  done: Extract<TrainEvent, { type: 'done' }>
  thread: TrainingThread
  /** What was asked of the thread. */
  trained: TrainRequest
  signal: AbortSignal
}

/** Ends the job: with its model, or with the reason why there is none. */
export async function publishJob(
  deps: PublishDeps,
  { progress, done, thread, trained, signal }: Trained,
): Promise<void> {
  const { step } = done
  // Its plan has its precision by now.
  const job = await progress.job()
  const refuse = async (failure: JobFailure) => {
    await progress.unpublished(done, failure)
    const { code } = failure.error
    deps.log.info({ job: job.id, step, code }, 'job failed: its model is not published')
  }
  const choice = await progress.chosen(job, done)
  if ('refused' in choice) return refuse(choice.refused)
  const {
    adapter_sha256: sha256,
    adapter_config_sha256: config_sha256,
    step_number,
  } = choice.chosen
  const model: ResolvedModel = {
    id: job.model_name,
    base_path: trained.model,
    root: job.root,
    project_id: job.project_id,
    adapter: { sha256, config_sha256 },
    job_id: job.id,
  }
  const request = { ...trained, plan: job.plan ?? trained.plan }
  const verdict = await certify(deps, { model, thread, request, signal })
  if ('difference' in verdict) return refuse(parityFailure(verdict.difference, step_number))
  await progress.publish(job, done)
  await progress.succeeded(job, done, verdict)
  deps.log.info({ job: job.id, step, ...verdict }, 'job succeeded')
}

/** A model of which nothing can be compared is only made resident. */
async function certify(
  { adapterFile, serving, log }: PublishDeps,
  {
    model,
    thread,
    request: { cache, training, validation, method, plan, seed },
    signal,
  }: { model: ResolvedModel; thread: TrainingThread; request: TrainRequest; signal: AbortSignal },
): Promise<Verdict | Uncompared> {
  const request: EvidenceRequest = {
    type: 'evidence',
    model: model.base_path,
    cache,
    training,
    ...(validation && { validation }),
    method,
    plan,
    seed,
    adapter: await patiently(() => adapterFile(model)),
  }
  let evidence: Evidence | undefined
  let unasked: string | undefined
  for await (const event of ask(thread, request, signal))
    if (event.type === 'evidence') ({ evidence, unasked } = event)
  if (evidence) {
    try {
      return await serving.certify(model, evidence)
    } catch (cause) {
      // What comes from our side is tried again as such, whatever a client would be told.
      throw new Error('The serving side of the parity check failed.', { cause })
    }
  }
  // A model that cannot be made resident now is a model all the same.
  await serving
    .warm(model)
    .catch((err) => log.warn({ job: model.job_id, err }, 'the new model is not resident yet'))
  return unasked === undefined ? {} : { unasked }
}
