// An object as a file that an engine thread may open, whatever store it lies in.

import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { ObjectKey, ObjectStore } from './object-store.ts'

export interface LocalFile extends AsyncDisposable {
  /** To be read only: it may be the object itself. */
  readonly path: string
}

/**
 * The object's own file after its sum was checked, or a temporary copy that goes when this is disposed:
 * `await using file = await localFile(store, key)`.
 */
export const localFile = async (store: ObjectStore, key: ObjectKey): Promise<LocalFile> => {
  if (store.localPath)
    return { path: await store.localPath(key), [Symbol.asyncDispose]: async () => {} }
  const folder = await mkdtemp(join(tmpdir(), 'luthier-object-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    const path = join(folder, randomUUID())
    await pipeline(await store.get(key), createWriteStream(path, { mode: 0o600 }))
    return { path, [Symbol.asyncDispose]: remove }
  } catch (error) {
    await remove()
    throw error
  }
}
