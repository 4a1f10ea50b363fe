// What nothing refers to any more is removed: rows of objects, then bytes without a row, then what was half received.
// Each single removal is under the object's lock, so several processes may sweep while others keep.

import type { Logger } from '../../log.ts'
import { listUnusedObjects } from '../db/objects.ts'
import { listProjectIds } from '../db/projects.ts'
import { releaseObject, type Stores, sweepUnknown } from './objects.ts'

export interface SweepOptions {
  /** An object that nothing refers to stays so long after it was last given. */
  readonly grace_ms: number
  /** What is half received counts as abandoned after so long. */
  readonly stale_ms: number
  readonly log: Logger
}

const PAGE = 500

export const sweepObjects = async (
  stores: Stores,
  { grace_ms, stale_ms, log }: SweepOptions,
): Promise<void> => {
  const unused = await sweepRows(stores, grace_ms)
  const unknown = await sweepBytes(stores)
  await stores.store.clearStale(stale_ms)
  if (unused + unknown > 0) log.info({ unused, unknown }, 'objects swept')
}

const sweepRows = async (stores: Stores, grace_ms: number): Promise<number> => {
  let count = 0
  let after: { project_id: string; sha256: string } | undefined
  do {
    const query = { idle_seconds: grace_ms / 1000, after, limit: PAGE }
    const page = await listUnusedObjects(stores.db, query)
    for (const object of page) await releaseObject(stores, object)
    count += page.length
    after = page.length === PAGE ? page.at(-1) : undefined
  } while (after)
  return count
}

const sweepBytes = async (stores: Stores): Promise<number> => {
  let count = 0
  for (const project_id of await listProjectIds(stores.db))
    count += await sweepUnknown(stores, project_id)
  return count
}
