// Objects as files: written under a temporary name, synced, then renamed, so that a crash leaves all or nothing.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { checkedStream } from './checked-stream.ts'
import {
  type ByteRange,
  type ObjectInfo,
  type ObjectKey,
  ObjectMissing,
  type ObjectStore,
  objectKey,
  parseKey,
  type Staged,
} from './object-store.ts'
import { clearStale, ownName, unlessMissing } from './temporary-names.ts'

const PAGE = 1000
const CHUNK = 256 * 1024

/** Opens the store in this folder, and clears what dead processes left half written. */
export const openFolderStore = async (folder: string): Promise<ObjectStore> => {
  const incoming = join(folder, 'incoming')
  // Training data is nobody else's business on this machine.
  await mkdir(incoming, { recursive: true, mode: 0o700 })
  await clearStale(incoming)

  const pathOf = (key: ObjectKey): string => {
    const { project_id, sha256 } = parseKey(key)
    return join(folder, 'projects', project_id, sha256.slice(0, 2), sha256)
  }

  const stage = async (body: AsyncIterable<Uint8Array>): Promise<Staged> => {
    const path = join(incoming, ownName())
    try {
      const { sha256, bytes } = await write(path, body)
      return {
        sha256,
        bytes,
        keep: async (project_id) => {
          const key = objectKey(project_id, sha256)
          await moveInto(path, folder, pathOf(key))
          return key
        },
        discard: () => rm(path, { force: true }),
      }
    } catch (error) {
      await rm(path, { force: true })
      throw error
    }
  }

  const get = async (key: ObjectKey, range?: ByteRange): Promise<Readable> => {
    const handle = await openObject(pathOf(key), key)
    const stream = createReadStream('', {
      fd: handle,
      highWaterMark: CHUNK,
      ...(range && { start: range.start }),
      ...(range?.end !== undefined && { end: range.end }),
    })
    return range ? stream : checkedStream(key, stream)
  }

  const head = async (key: ObjectKey): Promise<ObjectInfo | undefined> => {
    const found = await stat(pathOf(key)).catch(unlessMissing)
    return found && { key, bytes: found.size }
  }

  const list: ObjectStore['list'] = async (project_id, cursor = '') => {
    const root = join(folder, 'projects', project_id)
    const objects: ObjectInfo[] = []
    for (const part of await namesIn(root)) {
      if (part < cursor.slice(0, 2)) continue
      for (const sha256 of await namesIn(join(root, part))) {
        if (sha256 <= cursor) continue
        if (objects.length === PAGE)
          return { objects, cursor: parseKey(objects.at(-1)!.key).sha256 }
        const info = await head(objectKey(project_id, sha256))
        if (info) objects.push(info)
      }
    }
    return { objects }
  }

  return {
    stage,
    get,
    head,
    list,
    delete: (key) => rm(pathOf(key), { force: true }),
    localFile: async (key) => {
      for await (const _ of await get(key)) {
        // Reading to the end is what checks the sum.
      }
      return { path: pathOf(key), [Symbol.asyncDispose]: async () => {} }
    },
    clearStale: (age_ms) => clearStale(incoming, age_ms),
  }
}

/** Writes, counts and hashes the bytes; on disk when it resolves. */
const write = async (path: string, body: AsyncIterable<Uint8Array>) => {
  const hash = createHash('sha256')
  let bytes = 0
  await using file = await open(path, 'wx', 0o600)
  for await (const chunk of body) {
    hash.update(chunk)
    bytes += chunk.byteLength
    await file.writeFile(chunk)
  }
  await file.sync()
  return { sha256: hash.digest('hex'), bytes }
}

/** Renames, then syncs every folder on the way: a name is durable only with its folder. */
const moveInto = async (from: string, root: string, to: string): Promise<void> => {
  const part = join(to, '..')
  const project = join(part, '..')
  await mkdir(part, { recursive: true, mode: 0o700 })
  await rename(from, to).catch(async (cause) => {
    // Kept before, under this or another project's name: then it must be there already.
    if (!(await stat(to).catch(unlessMissing))) throw cause
  })
  for (const folder of [part, project, join(project, '..'), root]) await syncFolder(folder)
}

const syncFolder = async (folder: string): Promise<void> => {
  await using handle = await open(folder, 'r')
  await handle.sync()
}

const openObject = (path: string, key: ObjectKey): Promise<FileHandle> =>
  open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ENOENT' ? new ObjectMissing(key, { cause }) : cause
  })

const namesIn = async (folder: string): Promise<string[]> =>
  ((await readdir(folder).catch(unlessMissing)) ?? []).sort()
