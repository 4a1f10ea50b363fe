// A project's bytes: the store and the table `objects` kept in step. A row never names bytes that are not there;
// bytes without a row, which only a crash leaves, harm nobody.

import {
  deleteObjectIfUnused,
  knownObjects,
  lockObject,
  lockObjectForSession,
  unlockObject,
  upsertObject,
} from '../db/objects.ts'
import { type Pool, type PoolClient, transaction } from '../db/pool.ts'
import { type ObjectStore, objectKey, parseKey, type Staged } from './object-store.ts'

const AWAKE_MS = 20_000

export interface Stores {
  readonly db: Pool
  readonly store: ObjectStore
}

/**
 * Makes staged bytes an object of the project and, in the same transaction, lets `write` refer to it.
 * When it fails, the row is not there, and the bytes are removed if nobody else's are the same.
 */
export const keepObject = <T>(
  stores: Stores,
  project_id: string,
  staged: Staged,
  write: (tx: PoolClient) => Promise<T>,
): Promise<T> => keepObjects(stores, project_id, [staged], write)

/** The same for several that belong together: all of them, or none. */
export const keepObjects = async <T>(
  { db, store }: Stores,
  project_id: string,
  staged: readonly Staged[],
  write: (tx: PoolClient) => Promise<T>,
): Promise<T> => {
  // In one order, so that two who keep the same ones do not wait for each other.
  const ordered = staged.toSorted((a, b) => (a.sha256 < b.sha256 ? -1 : 1))
  const objects = ordered.map(({ sha256, bytes }) => ({ project_id, sha256, bytes }))
  try {
    return await transaction(db, async (tx) => {
      for (const object of objects) await lockObject(tx, object)
      await keepingAwake(tx, async () => {
        for (const one of ordered) await one.keep(project_id)
      })
      for (const object of objects) await upsertObject(tx, object)
      return await write(tx)
    })
  } catch (error) {
    for (const one of staged) await one.discard()
    for (const object of objects) await removeIfUnknown({ db, store }, object).catch(() => {})
    throw error
  }
}

/** Removes the object if no row refers to it any more; called after a reference was deleted. */
export const releaseObject = (
  stores: Stores,
  object: { project_id: string; sha256: string },
): Promise<void> =>
  withObjectLock(stores.db, object, async (client) => {
    await client.query('begin')
    try {
      const isGone = await deleteObjectIfUnused(client, object)
      await client.query('commit')
      // The bytes go after the row is gone for good, and still under the lock: nobody can keep them in between.
      if (isGone) await stores.store.delete(objectKey(object.project_id, object.sha256))
    } catch (error) {
      await client.query('rollback').catch(() => {})
      throw error
    }
  })

/** The same for several, each once. */
export async function releaseObjects(
  stores: Stores,
  project_id: string,
  hashes: readonly string[],
): Promise<void> {
  for (const sha256 of new Set(hashes)) await releaseObject(stores, { project_id, sha256 })
}

/** Removes the bytes of a project that no row names: a process died between storing them and its commit. */
export const sweepUnknown = async (stores: Stores, project_id: string): Promise<number> => {
  let removed = 0
  let cursor: string | undefined
  do {
    const page = await stores.store.list(project_id, cursor)
    const found = page.objects.map(({ key }) => parseKey(key).sha256)
    const known = new Set(await knownObjects(stores.db, project_id, found))
    for (const sha256 of found)
      if (!known.has(sha256)) {
        // Looked at again under its lock: it may be somebody's who has not committed yet.
        await removeIfUnknown(stores, { project_id, sha256 })
        removed++
      }
    cursor = page.cursor
  } while (cursor !== undefined)
  return removed
}

const removeIfUnknown = (
  { db, store }: Stores,
  object: { project_id: string; sha256: string },
): Promise<void> =>
  withObjectLock(db, object, async (client) => {
    const { rowCount } = await client.query(
      'select from objects where project_id = $1 and sha256 = $2',
      [object.project_id, object.sha256],
    )
    if (rowCount === 0) await store.delete(objectKey(object.project_id, object.sha256))
  })

/** The database ends a transaction that says nothing for a minute; copying a large object may take longer. */
const keepingAwake = async (tx: PoolClient, body: () => Promise<void>): Promise<void> => {
  let asking = Promise.resolve()
  const timer = setInterval(() => {
    asking = asking.then(async () => {
      await tx.query('select').catch(() => {})
    })
  }, AWAKE_MS)
  try {
    await body()
  } finally {
    clearInterval(timer)
    await asking
  }
}

const withObjectLock = async (
  db: Pool,
  object: { project_id: string; sha256: string },
  body: (client: PoolClient) => Promise<void>,
): Promise<void> => {
  const client = await db.connect()
  let isLocked = false
  try {
    await lockObjectForSession(client, object)
    isLocked = true
    await body(client)
    await unlockObject(client, object)
    isLocked = false
  } finally {
    // A connection that may still hold the lock is closed, which frees it.
    client.release(isLocked)
  }
}
