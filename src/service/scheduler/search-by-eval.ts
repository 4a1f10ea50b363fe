// Chooses weights and densities of adapters by the score of an eval. A candidate is made as the merge itself would be and
// asked by a run of the eval, which another worker does; its weights are objects that no model names, and go with its score.
// Scores stay until the merge ends, so that a search that was interrupted goes on from them.

import type { AdapterMergeConfig } from '../../engine/merge/adapter-config.ts'
import { evolve } from '../../engine/merge/evolution.ts'
import { type Candidate, pointsOf } from '../../engine/merge/search-points.ts'
import { invalidRequest } from '../../errors.ts'
import { type EvalRun, findRunOfCandidate, letGoOfWeights } from '../db/eval-runs.ts'
import type { Merge } from '../db/merges.ts'
import { holdLease, type Lease } from '../db/work.ts'
import { releaseAll } from '../merges/searched.ts'
import { keepObjects, type Stores } from '../storage/objects.ts'
import { Hopeless, patiently } from '../work/patience.ts'
import { awaitScore, startPinnedRun } from './await-score.ts'
import { stageFiles } from './stage-files.ts'

export interface EvalSearch {
  merge: Merge
  config: AdapterMergeConfig
  /** What the adapters are adapters of. */
  root: string
  /** Makes the adapter that a merge's text describes. */
  make: (text: Text) => Promise<{ folder: string; files: readonly string[] }>
  lease: Lease
  signal: AbortSignal
}

type Text = Readonly<Record<string, unknown>>

/** The fields of the text that are searched. */
type Point = Pick<Candidate, 'weights' | 'density'>

/** Tries candidates until the budget is used; returns the merge's text with what was best in place of its search. */
export async function* searchByEval(
  stores: Stores,
  asked: EvalSearch,
): AsyncGenerator<Candidate & { budget: number }, Text, undefined> {
  const { merge, config } = asked
  const { search, density, seed } = config
  if (!search) throw new Hopeless(`The merge ${merge.id} searches nothing.`)
  const { budget } = search
  const weights = config.adapters.map(({ weight }) => weight)
  const { box, start, read } = pointsOf({ weights, ...(density && { density }) }, search)
  let chosen: Point = read(start)
  const candidates = evolve({ box, start, budget, seed }, async (point, candidate) => {
    const score = await scoreOf(stores, asked, { candidate, point: read(point) })
    return -score
  })
  for await (const { point, loss, ...tried } of candidates) {
    if (tried.best) chosen = read(point)
    yield { ...tried, ...read(point), score: -loss, budget }
  }
  return textWith(merge, chosen)
}

/** The text of a merge without its search, with these numbers. */
function textWith({ config: { search: _, ...text } }: Merge, point: Point): Text {
  return { ...text, ...point }
}

/** Of one candidate: of its run, or of the one that there was before an interruption. */
async function scoreOf(
  stores: Stores,
  asked: EvalSearch,
  { candidate, point }: { candidate: number; point: Point },
): Promise<number> {
  const { merge, signal } = asked
  const { id, project_id } = merge
  const { db } = stores
  const failed = (why: string) => evalFailed(candidate, why)
  signal.throwIfAborted()
  const run =
    (await patiently(() => findRunOfCandidate(db, id, candidate))) ??
    (await startRun(stores, asked, { candidate, point }, failed))
  const { eval_score } = await awaitScore(db, { project_id, id: run.id, signal }, failed)
  const { adapter_sha256, adapter_config_sha256 } = run
  await patiently(() => letGoOfWeights(db, run.id))
  const hashes = [adapter_sha256, adapter_config_sha256].filter((sha256) => sha256 !== null)
  await patiently(() => releaseAll(stores, project_id, hashes))
  return eval_score
}

async function startRun(
  stores: Stores,
  { merge, root, make, lease, signal }: EvalSearch,
  { candidate, point }: { candidate: number; point: Point },
  failed: (why: string) => Error,
): Promise<EvalRun> {
  const { id: merge_id, project_id, eval: wanted, eval_items_sha256: items_sha256 } = merge
  if (!wanted || items_sha256 === null)
    throw new Hopeless(`The merge ${merge_id} has an eval to go by but no rows for it.`)
  const { folder, files } = await make(textWith(merge, point))
  const full = 'The candidate cannot be stored: there is no more room for its files on the disk'
  const { staged } = await stageFiles(stores.store, { folder, paths: files, full }, signal)
  const hashOf = (path: string) => staged.find((one) => one.path === path)!.sha256
  const name = `${merge_id}, candidate ${candidate}`
  const run = {
    project_id,
    pinned: { ...wanted, items_sha256 },
    model: name,
    name,
    of: {
      merge_id,
      candidate,
      root,
      adapter_sha256: hashOf('adapter_model.safetensors'),
      adapter_config_sha256: hashOf('adapter_config.json'),
    },
  }
  return keepObjects(stores, project_id, staged, async (tx) => {
    await holdLease(tx, lease)
    return startPinnedRun(tx, run, failed)
  })
}

const evalFailed = (candidate: number, why: string) =>
  invalidRequest(`Candidate ${candidate} of the search could not be evaluated: ${why}.`, {
    param: 'search.eval',
    code: 'eval_failed',
  })
