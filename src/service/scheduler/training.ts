// Fine-tuning jobs as a kind of work: each in a training thread and on devices of its own.

import { spawn } from '../../engine/runtime/thread.ts'
import type { TrainEvent, TrainThreadRequest } from '../../engine/train/request.ts'
import type { JobFailure } from '../jobs/file-errors.ts'
import { FINE_TUNING_JOB } from '../jobs/jobs.ts'
import { Progress } from '../jobs/progress.ts'
import { releaseEnded } from '../jobs/superseded.ts'
import { failureOf } from '../work/failure.ts'
import type { WorkKind } from '../work/kind.ts'
import { startWorker, type Worker, type WorkerOptions } from '../work/worker.ts'
import type { DevicePool } from './device-pool.ts'
import { withoutFolders } from './own-folders.ts'
import { type RunJobDeps, runJob } from './run-job.ts'
import { TrainingMemory } from './training-memory.ts'
import { TrainingFault } from './training-thread.ts'

export interface TrainingOptions
  extends Omit<RunJobDeps, 'spawnThread' | 'memory'>,
    Pick<WorkerOptions, 'lease_seconds' | 'poll_seconds'> {
  /** Where training threads compute. */
  pool: DevicePool
  /** Bytes that jobs may take together; absent: what is free when this starts. */
  memory?: number
  /** What is claimed besides jobs. */
  others?: readonly WorkKind[]
  /** Folders of this machine that no message to a client names. */
  folders: readonly string[]
}

const WORKER = new URL('../../engine/train/worker.ts', import.meta.url)

/** Starts claiming and training; dispose it to stop, which commits the running job's state first. */
export function startTraining(options: TrainingOptions): Worker {
  const { pool, folders, others = [], lease_seconds, poll_seconds, memory, ...rest } = options
  const deps = { ...rest, memory: new TrainingMemory(memory ?? process.availableMemory()) }
  const releasing = releaseEnded(deps.stores).catch((err) =>
    deps.log.warn({ err }, 'what ended jobs left behind could not be released'),
  )
  const worker = startWorker({
    db: deps.stores.db,
    log: deps.log,
    kinds: [fineTuning(deps, pool, folders), ...others],
    devices: { device: deps.compute.device, devices: pool.count },
    ...(lease_seconds !== undefined && { lease_seconds }),
    ...(poll_seconds !== undefined && { poll_seconds }),
  })
  const stop = async () => {
    await worker.stop()
    await releasing
  }
  return { stop, [Symbol.asyncDispose]: stop }
}

const fineTuning = (
  deps: Omit<RunJobDeps, 'spawnThread'>,
  pool: DevicePool,
  folders: readonly string[],
): WorkKind => ({
  kind: FINE_TUNING_JOB,
  async run(lease, signal) {
    using held = pool.take(lease.devices)
    const spawnThread = () => spawn<TrainThreadRequest, TrainEvent>(WORKER, held.takeTurn)
    return await runJob({ ...deps, spawnThread }, lease, signal)
  },
  fail: (lease, cause) => new Progress(deps.stores, lease).failed(jobFailureOf(cause, folders)),
})

/** What the job's owner is told: their own mistakes and training's in full, of ours only that the log has them. */
function jobFailureOf(cause: unknown, folders: readonly string[]): JobFailure {
  if (!(cause instanceof TrainingFault)) return { error: failureOf(cause, 'job'), errors: [] }
  const message = `The job failed during training. ${withoutFolders(cause.message, folders)}`
  return { error: { code: 'server_error', message, param: null }, errors: [] }
}
