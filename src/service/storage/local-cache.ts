// Copies of objects on this machine's disk, for stores that have no files: each fetched once, the oldest dropped
// when they take too much room. Several processes may share the folder.

import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { link, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type LocalFile, type ObjectKey, parseKey } from './object-store.ts'
import { clearStale, ownName, unlessMissing } from './temporary-names.ts'

/** A training run may take long; a name older than this was left by a machine that lost its processes. */
const LONGEST_USE_MS = 30 * 24 * 60 * 60 * 1000

export interface LocalCacheOptions {
  /** Holds nothing that cannot be fetched again. */
  readonly folder: string
  /** What the copies may take on disk; those in use stay beyond it. */
  readonly limit_bytes: number
}

export type LocalCache = (key: ObjectKey) => Promise<LocalFile>

/** `fetch` gives the bytes of an object and fails where they are not what the key says. */
export const openLocalCache = async (
  { folder, limit_bytes }: LocalCacheOptions,
  fetch: (key: ObjectKey) => Promise<Readable>,
): Promise<LocalCache> => {
  const copies = join(folder, 'copies')
  // What is in use has a name of its own, so that dropping the copy takes it from nobody.
  const inUse = join(folder, 'in-use')
  const makeFolders = async () => {
    for (const place of [copies, inUse]) await mkdir(place, { recursive: true, mode: 0o700 })
  }
  await makeFolders()
  await clearStale(inUse, LONGEST_USE_MS)
  const fetching = new Map<ObjectKey, Promise<void>>()

  const placeOf = (key: ObjectKey) => {
    const { project_id, sha256 } = parseKey(key)
    return join(copies, `${project_id}.${sha256}`)
  }

  const fetchCopy = async (key: ObjectKey) => {
    // A cache may be emptied by hand at any time.
    await makeFolders()
    const temporary = join(inUse, ownName())
    try {
      await pipeline(
        await fetch(key),
        createWriteStream(temporary, { flags: 'wx', mode: 0o600, flush: true }),
      )
      await rename(temporary, placeOf(key))
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
    await dropOldest(copies, limit_bytes)
  }

  const fetchOnce = (key: ObjectKey) => {
    const under = fetching.get(key) ?? fetchCopy(key).finally(() => fetching.delete(key))
    fetching.set(key, under)
    return under
  }

  /** A name of one's own for the copy; undefined when there is none, or none that is whole. */
  const take = async (key: ObjectKey): Promise<string | undefined> => {
    const path = join(inUse, ownName())
    const place = placeOf(key)
    // Before the link, so that it is not the oldest at the moment it is wanted.
    await utimes(place, new Date(), new Date()).catch(unlessMissing)
    if ((await link(place, path).then(() => true, unlessMissing)) === undefined) return undefined
    if ((await sumOf(path)) === parseKey(key).sha256) return path
    await rm(path, { force: true })
    await rm(place, { force: true })
    return undefined
  }

  return async (key) => {
    // Twice: another process may drop the copy before it is taken.
    for (let attempt = 0; attempt < 3; attempt++) {
      const path = await take(key)
      if (path !== undefined)
        return { path, [Symbol.asyncDispose]: () => rm(path, { force: true }) }
      await fetchOnce(key)
    }
    throw new Error(
      `The copy of ${key} was dropped again and again: ${folder} has too little room.`,
    )
  }
}

const sumOf = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 }))
    hash.update(chunk)
  return hash.digest('hex')
}

/** Drops copies, the longest unused first, until the rest fits; the newest always stays. */
const dropOldest = async (folder: string, limit_bytes: number): Promise<void> => {
  const found: { path: string; bytes: number; used: number }[] = []
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    const info = await stat(path).catch(unlessMissing)
    if (info) found.push({ path, bytes: info.size, used: info.mtimeMs })
  }
  found.sort((a, b) => b.used - a.used)
  let total = 0
  for (const [i, { path, bytes }] of found.entries()) {
    total += bytes
    if (i > 0 && total > limit_bytes) await rm(path, { force: true })
  }
}
