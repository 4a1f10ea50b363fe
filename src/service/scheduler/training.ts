// Fine-tuning jobs as a kind of work: claimed one at a time, each in a training thread of its own.

import { spawn, type TakeTurn } from '../../engine/runtime/thread.ts'
import type { TrainEvent, TrainThreadRequest } from '../../engine/train/request.ts'
import { ApiError } from '../../errors.ts'
import type { JobFailure } from '../jobs/file-errors.ts'
import { FINE_TUNING_JOB } from '../jobs/jobs.ts'
import { Progress } from '../jobs/progress.ts'
import { releaseEnded } from '../jobs/superseded.ts'
import type { WorkKind } from '../work/kind.ts'
import { startWorker, type Worker, type WorkerOptions } from '../work/worker.ts'
import { withoutFolders } from './own-folders.ts'
import { type RunJobDeps, runJob, TrainingFault } from './run-job.ts'

export interface TrainingOptions
  extends Omit<RunJobDeps, 'spawnThread'>,
    Pick<WorkerOptions, 'lease_seconds' | 'poll_seconds'> {
  /** When a training thread may compute: `device.turns('training')`. */
  takeTurn: TakeTurn
  /** Folders of this machine that no message to a client names. */
  folders: readonly string[]
}

const WORKER = new URL('../../engine/train/worker.ts', import.meta.url)

/** Starts claiming and training; dispose it to stop, which commits the running job's state first. */
export function startTraining(options: TrainingOptions): Worker {
  const { takeTurn, folders, lease_seconds, poll_seconds, ...rest } = options
  const deps: RunJobDeps = {
    ...rest,
    spawnThread: () => spawn<TrainThreadRequest, TrainEvent>(WORKER, takeTurn),
  }
  const releasing = releaseEnded(deps.stores).catch((err) =>
    deps.log.warn({ err }, 'what ended jobs left behind could not be released'),
  )
  const worker = startWorker({
    db: deps.stores.db,
    log: deps.log,
    kinds: [fineTuning(deps, folders)],
    ...(lease_seconds !== undefined && { lease_seconds }),
    ...(poll_seconds !== undefined && { poll_seconds }),
  })
  const stop = async () => {
    await worker.stop()
    await releasing
  }
  return { stop, [Symbol.asyncDispose]: stop }
}

const fineTuning = (deps: RunJobDeps, folders: readonly string[]): WorkKind => ({
  kind: FINE_TUNING_JOB,
  run: (lease, signal) => runJob(deps, lease, signal),
  fail: (lease, cause) => new Progress(deps.stores, lease).failed(failureOf(cause, folders)),
})

/** What the job's owner is told: their own mistakes and training's in full, of ours only that the log has them. */
function failureOf(cause: unknown, folders: readonly string[]): JobFailure {
  if (cause instanceof ApiError) {
    const { code, message, param } = cause
    return { error: { code: code ?? 'invalid_request', message, param }, errors: [] }
  }
  const message =
    cause instanceof TrainingFault
      ? `The job failed during training. ${withoutFolders(cause.message, folders)}`
      : 'The job failed due to an internal error. The log of the server has the details under the id of the job.'
  return { error: { code: 'server_error', message, param: null }, errors: [] }
}
