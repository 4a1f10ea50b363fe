// What a store of bytes can do, whatever is behind it: a folder or a bucket in S3.
// Objects are immutable and named by project and SHA-256; the sum is our own and is checked on reading.

import type { Readable } from 'node:stream'

/** `<project id>/<sha256>`. */
export type ObjectKey = string

export interface ObjectInfo {
  readonly key: ObjectKey
  readonly bytes: number
}

/** Bytes that were received but are no object yet: `keep` makes them one, `discard` leaves nothing. */
export interface Staged {
  readonly sha256: string
  readonly bytes: number
  /** Makes them the object of this project; durable when it resolves, and harmless when it is there already. */
  keep(project_id: string): Promise<ObjectKey>
  /** Without effect after `keep`. */
  discard(): Promise<void>
}

/** First and last byte, both included, as in an HTTP Range. */
export interface ByteRange {
  readonly start: number
  readonly end?: number
}

export interface LocalFile extends AsyncDisposable {
  /** To be read only: it may be the object itself. */
  readonly path: string
}

export interface ObjectStore {
  /** Takes the bytes in, counting and hashing; when `body` fails nothing is left behind. */
  stage(body: AsyncIterable<Uint8Array>): Promise<Staged>
  /**
   * The bytes of an object. A stream of all of them fails at its end where they are not those that were stored;
   * ranges are not checked. Throws `ObjectMissing`.
   */
  get(key: ObjectKey, range?: ByteRange): Promise<Readable>
  head(key: ObjectKey): Promise<ObjectInfo | undefined>
  /** The objects of one project in the order of their keys, some at a time. */
  list(project_id: string, cursor?: string): Promise<{ objects: ObjectInfo[]; cursor?: string }>
  /** Removes the object; one that is not there is as good as removed. */
  delete(key: ObjectKey): Promise<void>
  /** The object as a file that an engine thread may open; its sum is checked before. */
  localFile(key: ObjectKey): Promise<LocalFile>
  /** Removes what was half received that long ago, by a process that is gone or was cut off. */
  clearStale(age_ms: number): Promise<void>
}

/** Asked for an object that is not there: rows name only objects that are, so this is no caller's mistake. */
export class ObjectMissing extends Error {
  override readonly name = 'ObjectMissing'
  readonly key: ObjectKey

  constructor(key: ObjectKey, options?: ErrorOptions) {
    super(`The object ${key} is missing from the store.`, options)
    this.key = key
  }
}

/** The stored bytes are not those that were given. */
export class ObjectCorrupt extends Error {
  override readonly name = 'ObjectCorrupt'
  readonly key: ObjectKey

  constructor(key: ObjectKey, found: string) {
    super(`The object ${key} is corrupt: its bytes have the SHA-256 ${found}.`)
    this.key = key
  }
}

/** The store cannot be reached or does not answer; later it may. */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable'
}

export const objectKey = (project_id: string, sha256: string): ObjectKey =>
  `${project_id}/${sha256}`

/** Takes a key apart; one that is none (a path, say) throws. */
export const parseKey = (key: ObjectKey): { project_id: string; sha256: string } => {
  const match = /^([A-Za-z0-9_-]{1,80})\/([0-9a-f]{64})$/.exec(key)
  if (!match) throw new Error(`This is no key of an object: ${JSON.stringify(key)}.`)
  return { project_id: match[1]!, sha256: match[2]! }
}

/** Stages and keeps in one. */
export const putObject = async (
  store: ObjectStore,
  project_id: string,
  body: AsyncIterable<Uint8Array>,
): Promise<{ sha256: string; bytes: number }> => {
  const staged = await store.stage(body)
  try {
    await staged.keep(project_id)
  } finally {
    await staged.discard()
  }
  return { sha256: staged.sha256, bytes: staged.bytes }
}
