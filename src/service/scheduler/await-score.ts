// The score of a run that another worker does: whoever needs it waits.

import { setTimeout as sleep } from 'node:timers/promises'
import { type EvalRun, findEvalRun, sumsOfRuns } from '../db/eval-runs.ts'
import { findEval, type PinnedEval } from '../db/evals.ts'
import type { Db, Pool } from '../db/pool.ts'
import type { DataSource } from '../evals/data.ts'
import { type RunScore, scoreOf } from '../evals/pinned.ts'
import { CHECKPOINT_EVAL_RUN, newRun, writeRun } from '../evals/runs.ts'
import { patiently } from '../work/patience.ts'

const POLL_MS = 250

/** Why there is no score, as an error of whoever waits. */
type Failed = (why: string) => Error

export interface PinnedRun {
  project_id: string
  pinned: PinnedEval & { items_sha256: string }
  /** The model that is asked, or what its weights are called. */
  model: string
  name: string
  /** What it is made for. */
  of: Pick<EvalRun, 'job_id' | 'step'> | Pick<EvalRun, 'merge_id' | 'candidate' | 'root'>
}

/** Puts a run over the pinned rows in line. */
export async function startPinnedRun(
  tx: Db,
  { project_id, pinned, model, name, of }: PinnedRun,
  failed: Failed,
): Promise<EvalRun> {
  const one = await findEval(tx, project_id, pinned.eval_id)
  if (!one) throw failed(`the eval ${pinned.eval_id} was deleted`)
  const data_source = { ...pinned.data_source, model } as unknown as DataSource
  const { items_sha256 } = pinned
  const run = { ...newRun(one, { name, data_source }), items_sha256, few_shot_sha256: null, ...of }
  return writeRun(tx, run, CHECKPOINT_EVAL_RUN)
}

/** Waits until the run has ended. Throws where it went wrong, and what `signal` says. */
export async function awaitScore(
  db: Pool,
  { project_id, id, signal }: { project_id: string; id: string; signal: AbortSignal },
  failed: Failed,
): Promise<RunScore> {
  for (;;) {
    signal.throwIfAborted()
    const run = await patiently(() => findEvalRun(db, project_id, id))
    if (!run) throw failed('its run was deleted')
    if (run.status === 'completed') {
      const sums = (await patiently(() => sumsOfRuns(db, [id]))).get(id)
      return { run_id: id, ...scoreOf(run, sums?.criteria ?? []) }
    }
    if (run.status === 'failed' || run.status === 'canceled')
      throw failed(run.error?.message ?? `its run ${id} was canceled`)
    await sleep(POLL_MS, undefined, { signal })
  }
}
