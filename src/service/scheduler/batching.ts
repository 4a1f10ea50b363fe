// Batches as a kind of work. They hold no device: their lines are asked for as clients ask, behind all others.

import { BATCH } from '../batches/batches.ts'
import { startWorker, type Worker, type WorkerOptions } from '../work/worker.ts'
import { failBatch, type RunBatchDeps, runBatch } from './run-batch.ts'

export type BatchingOptions = RunBatchDeps &
  Pick<WorkerOptions, 'lease_seconds' | 'poll_seconds'> & {
    /** `cpu`, …: as the work's column has it. */
    device: string
  }

/** So many at once, that one of fifty thousand lines does not keep all others waiting. */
const AT_ONCE = 4

/** Starts claiming batches; dispose it to stop, which keeps the lines that are answered. */
export function startBatching(options: BatchingOptions): Worker {
  const { lease_seconds, poll_seconds, device, ...deps } = options
  return startWorker({
    db: deps.stores.db,
    log: deps.log,
    kinds: [
      {
        kind: BATCH,
        run: (lease, signal) => runBatch(deps, lease, signal),
        fail: (lease, cause) => failBatch(deps, lease, cause),
      },
    ],
    devices: { device, devices: AT_ONCE },
    ...(lease_seconds !== undefined && { lease_seconds }),
    ...(poll_seconds !== undefined && { poll_seconds }),
  })
}
