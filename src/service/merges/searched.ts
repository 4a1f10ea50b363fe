// What a search by an eval holds on to while its merge is under way: runs of candidates, their weights, the eval's rows.

import { deleteRunFiles } from '../db/eval-run-files.ts'
import { deleteRunsOfMerge, runsOfMerge } from '../db/eval-runs.ts'
import { unpinEvalRows } from '../db/merges.ts'
import type { Db } from '../db/pool.ts'
import { cancelWork, deleteWork } from '../db/work.ts'

/** Takes it away in the transaction that ends the merge; returns the objects that are to be released after it. */
export async function endSearch(tx: Db, merge_id: string): Promise<string[]> {
  const runs = await runsOfMerge(tx, merge_id)
  // The work first: its holder's transactions lock it first too.
  for (const id of runs) await cancelWork(tx, id)
  const weights = await deleteRunFiles(tx, runs)
  await deleteRunsOfMerge(tx, merge_id)
  await deleteWork(tx, runs)
  const rows = await unpinEvalRows(tx, merge_id)
  return rows === undefined ? weights : [...weights, rows]
}
