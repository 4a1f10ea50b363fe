// Uploads in parts: what is sent in pieces, in any order and at once, becomes a file like any other.

import { createHash } from 'node:crypto'
import { ApiError, invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { FileRecord } from '../db/files.ts'
import { type PoolClient, transaction } from '../db/pool.ts'
import {
  deleteOldUploads,
  endUpload,
  findUpload,
  insertUpload,
  insertUploadPart,
  listUploadParts,
  lockUpload,
  type UploadPartRecord,
  type UploadRecord,
} from '../db/uploads.ts'
import { newId } from '../ids.ts'
import type { DiskQuota } from '../storage/disk-quota.ts'
import { objectKey, type Staged } from '../storage/object-store.ts'
import { keepObject, releaseObject, type Stores } from '../storage/objects.ts'
import { checkName, type Files, type Purpose } from './files.ts'

export type { UploadPartRecord, UploadRecord } from '../db/uploads.ts'

/** 8 GB in all and 64 MB a part, as OpenAI's limits. */
export const UPLOAD_LIMIT = 8 * 1024 ** 3
export const PART_LIMIT = 64 * 1024 ** 2

const LIFE_SECONDS = 60 * 60
/** One that is being completed when it expires is still completed. */
const KEPT_SECONDS = 60 * 60

export interface NewUploadRequest {
  readonly filename: string
  readonly purpose: Purpose
  readonly bytes: number
  readonly mime_type: string
  readonly expires_after_seconds?: number | undefined
}

export interface Completion {
  /** In the order of the file. */
  readonly part_ids: readonly string[]
  /** Of all bytes, in hex or base64. */
  readonly md5?: string | undefined
}

export interface Uploads {
  create(project_id: string, request: NewUploadRequest): Promise<UploadRecord>
  /** Takes the bytes of a part in, while the upload takes parts. */
  receivePart(project_id: string, id: string, body: AsyncIterable<Uint8Array>): Promise<Staged>
  addPart(project_id: string, id: string, staged: Staged): Promise<UploadPartRecord>
  /** Puts the parts together; the upload goes on when it is refused. */
  complete(
    project_id: string,
    id: string,
    completion: Completion,
  ): Promise<{ upload: UploadRecord; file: FileRecord }>
  cancel(project_id: string, id: string): Promise<UploadRecord>
  /** Removes uploads some time after their expiry, and what was sent for them. */
  sweep(): Promise<void>
}

export interface UploadsDeps extends Stores {
  readonly files: Files
  readonly quota: DiskQuota
  readonly log: Logger
}

/** The uploads of all projects. */
export const createUploads = (deps: UploadsDeps): Uploads => {
  const { db, store, files, quota, log } = deps

  const retrieve = async (project_id: string, id: string): Promise<UploadRecord> => {
    const upload = await findUpload(db, project_id, id)
    if (!upload) throw noSuchUpload(id)
    return upload
  }
  const retrievePending = async (project_id: string, id: string) =>
    refuseEnded(await retrieve(project_id, id))

  const release = async (parts: readonly Pick<UploadPartRecord, 'project_id' | 'sha256'>[]) => {
    // The rows are gone for good; bytes that stay behind are swept later.
    for (const part of parts)
      await releaseObject(deps, part).catch((err: unknown) =>
        log.warn({ err }, 'bytes of a part could not be removed'),
      )
  }

  return {
    create: async (project_id, request) => {
      const { filename, purpose, bytes, mime_type, expires_after_seconds } = request
      checkName(filename, purpose, 'filename')
      await quota.admit(project_id, bytes)
      return insertUpload(db, {
        id: newId('upload_'),
        project_id,
        filename,
        purpose,
        bytes,
        mime_type,
        expires_after_seconds: expires_after_seconds ?? null,
        life_seconds: LIFE_SECONDS,
      })
    },

    receivePart: async (project_id, id, body) => {
      await retrievePending(project_id, id)
      return store.stage(atMost(PART_LIMIT, quota.watch(project_id, body)))
    },

    addPart: (project_id, id, staged) =>
      keepObject(deps, project_id, staged, async (tx) => {
        // Parts come at once; an end waits for those that are being written.
        await holdPending(tx, id, 'share')
        await quota.confirm(tx, project_id)
        return insertUploadPart(tx, {
          id: newId('part_'),
          upload_id: id,
          project_id,
          sha256: staged.sha256,
          bytes: staged.bytes,
        })
      }),

    complete: async (project_id, id, { part_ids, md5 }) => {
      const upload = await retrievePending(project_id, id)
      const parts = inOrder(await listUploadParts(db, id), part_ids)
      checkSum(upload, parts)
      // The parts go when the file is there, so it costs only what equal parts have saved.
      const saved = new Map(parts.map(({ sha256, bytes }) => [sha256, bytes]))
      await quota.admit(project_id, upload.bytes - sumOf([...saved.values()]))
      const hash = md5 === undefined ? undefined : createHash('md5')
      async function* body() {
        for (const { sha256 } of parts)
          for await (const chunk of await store.get(objectKey(project_id, sha256))) {
            hash?.update(chunk)
            yield chunk
          }
      }
      const received = await files.receiveAgain(body())
      try {
        if (hash && md5 !== undefined) checkMd5(md5, hash.digest())
        let ended: Awaited<ReturnType<typeof endUpload>> | undefined
        const file = await files.create(
          project_id,
          {
            filename: upload.filename,
            purpose: upload.purpose as Purpose,
            expires_after_seconds: upload.expires_after_seconds ?? undefined,
          },
          received,
          async (tx, { id: file_id }) => {
            const held = await lockUpload(tx, id, 'update')
            if (!held) throw noSuchUpload(id)
            // It was pending when this began, so an expiry meanwhile does not count.
            if (held.status !== 'expired') refuseEnded(held)
            ended = await endUpload(tx, id, { status: 'completed', file_id })
          },
        )
        if (!ended) throw new Error(`The upload ${id} became a file, but was not ended.`)
        await release(ended.parts)
        return { upload: ended.upload, file }
      } finally {
        await received.staged.discard()
      }
    },

    cancel: async (project_id, id) => {
      await retrievePending(project_id, id)
      const { upload, parts } = await transaction(db, async (tx) => {
        await holdPending(tx, id, 'update')
        return endUpload(tx, id, { status: 'cancelled', file_id: null })
      })
      await release(parts)
      return upload
    },

    sweep: async () => {
      for (;;) {
        const options = { age_seconds: KEPT_SECONDS, limit: 100 }
        const { count, parts } = await transaction(db, (tx) => deleteOldUploads(tx, options))
        await release(parts)
        if (count === 0) return
      }
    },
  }
}

const noSuchUpload = (id: string) =>
  notFound(`No such Upload object: ${id}`, { param: 'upload_id' })

const refuseEnded = (upload: UploadRecord): UploadRecord => {
  if (upload.status === 'pending') return upload
  throw invalidRequest(
    `The upload ${upload.id} is ${upload.status}; nothing can be done with it.`,
    {
      param: 'upload_id',
      code: `upload_${upload.status}`,
    },
  )
}

const holdPending = async (tx: PoolClient, id: string, mode: 'share' | 'update'): Promise<void> => {
  const upload = await lockUpload(tx, id, mode)
  if (!upload) throw noSuchUpload(id)
  refuseEnded(upload)
}

const inOrder = (
  parts: readonly UploadPartRecord[],
  part_ids: readonly string[],
): UploadPartRecord[] => {
  const byId = new Map(parts.map((part) => [part.id, part]))
  return part_ids.map((id, i) => {
    const part = byId.get(id)
    const where = { param: `part_ids[${i}]`, code: 'invalid_value' }
    if (!part) throw invalidRequest(`The upload has no part ${id}, or it stands twice.`, where)
    byId.delete(id)
    return part
  })
}

const checkSum = (upload: UploadRecord, parts: readonly UploadPartRecord[]): void => {
  const sum = sumOf(parts.map(({ bytes }) => bytes))
  if (sum === upload.bytes) return
  throw invalidRequest(
    `The parts have ${sum} bytes in all, but the upload was created for ${upload.bytes}.`,
    { param: 'part_ids', code: 'bytes_mismatch' },
  )
}

const sumOf = (numbers: readonly number[]) => numbers.reduce((total, n) => total + n, 0)

const checkMd5 = (expected: string, found: Buffer): void => {
  if ([found.toString('hex'), found.toString('base64')].includes(expected)) return
  if (expected.toLowerCase() === found.toString('hex')) return
  throw invalidRequest(
    `The bytes have the MD5 ${found.toString('hex')}, but '${expected}' was expected.`,
    { param: 'md5', code: 'md5_mismatch' },
  )
}

async function* atMost(limit: number, body: AsyncIterable<Uint8Array>) {
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.byteLength
    if (bytes > limit)
      throw new ApiError(
        413,
        `The part is too large: the limit is ${limit} bytes (${Math.floor(limit / 1024 ** 2)} MB).`,
        { param: 'data', code: 'part_too_large' },
      )
    yield chunk
  }
}
