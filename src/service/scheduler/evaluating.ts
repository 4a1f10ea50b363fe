// Eval runs as kinds of work. They hold no device: they ask the serving thread, as every client does. Those of
// checkpoints have a worker of their own, for a job that trains waits for them.

import { CHECKPOINT_EVAL_RUN, EVAL_RUN } from '../evals/runs.ts'
import type { WorkKind } from '../work/kind.ts'
import { startWorker, type Worker, type WorkerOptions } from '../work/worker.ts'
import { failEval, type RunEvalDeps, runEval } from './run-eval.ts'

export type EvaluatingOptions = RunEvalDeps &
  Pick<WorkerOptions, 'lease_seconds' | 'poll_seconds'> & {
    /** `cpu`, …: as the work's column has it. */
    device: string
  }

/** Starts claiming runs; dispose it to stop, which keeps the rows that are done. */
export function startEvaluating(options: EvaluatingOptions): Worker {
  const { lease_seconds, poll_seconds, device, ...deps } = options
  const workers = [EVAL_RUN, CHECKPOINT_EVAL_RUN].map((kind) =>
    startWorker({
      db: deps.stores.db,
      log: deps.log,
      kinds: [evalRuns(kind, deps)],
      devices: { device, devices: 1 },
      ...(lease_seconds !== undefined && { lease_seconds }),
      ...(poll_seconds !== undefined && { poll_seconds }),
    }),
  )
  const stop = async () => {
    await Promise.all(workers.map((worker) => worker.stop()))
  }
  return { stop, [Symbol.asyncDispose]: stop }
}

const evalRuns = (kind: string, deps: RunEvalDeps): WorkKind => ({
  kind,
  run: (lease, signal) => runEval(deps, lease, signal),
  fail: (lease, cause) => failEval(deps.stores, lease, cause),
})
