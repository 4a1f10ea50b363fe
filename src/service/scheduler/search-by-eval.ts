// Chooses weights and densities of a merge by the score of an eval. A candidate is made as the merge itself would be and
// asked by a run of the eval, which another worker does; its weights are objects that no model names, and go with its
// score. Scores stay until the merge ends, so that a search that was interrupted goes on from them.

import { rm } from 'node:fs/promises'
import {
  type Candidate,
  type Choice,
  type Searched,
  tryCandidates,
} from '../../engine/merge/search-points.ts'
import { invalidRequest } from '../../errors.ts'
import { deleteRunFiles, insertRunFiles } from '../db/eval-run-files.ts'
import { type EvalRun, findRunOfCandidate } from '../db/eval-runs.ts'
import type { Merge } from '../db/merges.ts'
import { holdLease, type Lease } from '../db/work.ts'
import { keepObjects, releaseObjects, type Stores } from '../storage/objects.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { awaitScore, startPinnedRun } from './await-score.ts'
import { stageFiles } from './stage-files.ts'

export interface EvalSearch {
  merge: Merge
  searched: Searched
  /** What is an adapter is an adapter of; undefined where models are made. */
  root: string | undefined
  /** Makes what the merge makes with these numbers. */
  make: (choice: Choice, candidate: number) => Promise<MadeCandidate>
  lease: Lease
  signal: AbortSignal
}

export interface MadeCandidate {
  /** Is removed when its files are stored. */
  folder: string
  files: readonly string[]
}

/** Tries candidates until the budget is used; returns what was best. */
export const searchByEval = (
  stores: Stores,
  asked: EvalSearch,
): AsyncGenerator<Candidate, Choice, undefined> =>
  tryCandidates(asked.searched, async (choice, candidate) => ({
    score: await scoreOf(stores, asked, { candidate, choice }),
  }))

interface Tried {
  candidate: number
  choice: Choice
}

/** Of one candidate: of its run, or of the one that there was before an interruption. */
async function scoreOf(stores: Stores, asked: EvalSearch, tried: Tried): Promise<number> {
  const { merge, signal } = asked
  const { id, project_id } = merge
  const { db } = stores
  signal.throwIfAborted()
  const run =
    (await patiently(() => findRunOfCandidate(db, id, tried.candidate))) ??
    (await startRun(stores, asked, tried))
  const failed = (why: string) => evalFailed(tried.candidate, why)
  const { eval_score } = await awaitScore(db, { project_id, id: run.id, signal }, failed)
  const hashes = await patiently(() => deleteRunFiles(db, [run.id]))
  await patiently(() => releaseObjects(stores, project_id, hashes))
  return eval_score
}

async function startRun(
  stores: Stores,
  { merge, root, make, lease, signal }: EvalSearch,
  { candidate, choice }: Tried,
): Promise<EvalRun> {
  const { id: merge_id, project_id, eval: wanted, eval_items_sha256: items_sha256 } = merge
  if (!wanted || items_sha256 === null)
    throw new Hopeless(`The merge ${merge_id} has an eval to go by but no rows for it.`)
  const { folder, files: paths } = await make(choice, candidate)
  const full = 'The candidate cannot be stored: there is no more room for its files on the disk'
  const { staged, files } = await stageFiles(stores.store, { folder, paths, full }, signal)
  const name = `${merge_id}, candidate ${candidate}`
  const pinned = { ...wanted, items_sha256 }
  const of = { merge_id, candidate, root: root ?? null }
  const run = { project_id, pinned, model: name, name, of }
  try {
    return await keepObjects(stores, project_id, staged, async (tx) => {
      await holdLease(tx, lease)
      const started = await startPinnedRun(tx, run, (why) => evalFailed(candidate, why))
      await insertRunFiles(tx, started, files)
      return started
    })
  } finally {
    // One copy of a candidate is enough.
    await rm(folder, { recursive: true, force: true })
  }
}

const evalFailed = (candidate: number, why: string) =>
  invalidRequest(`Candidate ${candidate} of the search could not be evaluated: ${why}.`, {
    param: 'search.eval',
    code: 'eval_failed',
  })
