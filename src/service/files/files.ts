// What an uploaded file is: its bytes are an object, its row says whose it is and what it is for.

import type { Readable } from 'node:stream'
import { ApiError, invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import {
  deleteExpiredFiles,
  deleteFile,
  type FileParent,
  type FileQuery,
  type FileRecord,
  findFile,
  insertFile,
  listFiles,
  type NewFile,
} from '../db/files.ts'
import type { PoolClient } from '../db/pool.ts'
import { newId } from '../ids.ts'
import type { DiskQuota } from '../storage/disk-quota.ts'
import { objectKey, type Staged } from '../storage/object-store.ts'
import { keepObject, releaseObject, type Stores } from '../storage/objects.ts'
import { createSniffer } from './sniff.ts'

export type { FileRecord } from '../db/files.ts'

/** What a file may be uploaded for. */
export const purposes = [
  'assistants',
  'batch',
  'fine-tune',
  'vision',
  'user_data',
  'evals',
] as const
export type Purpose = (typeof purposes)[number]

/** 512 MB, as OpenAI's limit for one file. */
export const FILE_LIMIT = 512 * 1024 * 1024

const DAY_SECONDS = 24 * 60 * 60

/** The bytes of an upload, received before all is known about them. */
export interface Upload {
  readonly staged: Staged
  /** What makes it no JSONL, if anything does. */
  readonly notJsonl: string | undefined
  /** Whether it takes room that nothing was counted for before. */
  readonly isNew: boolean
}

export interface NewUpload {
  readonly filename: string
  readonly purpose: Purpose
  readonly expires_after_seconds?: number | undefined
  readonly parent?: FileParent | undefined
}

export interface Files {
  /** Takes the bytes in; too many, of the file or of the project, are an error that leaves nothing. */
  receive(project_id: string, body: AsyncIterable<Uint8Array>): Promise<Upload>
  /** The same for bytes that were counted when they came. */
  receiveAgain(body: AsyncIterable<Uint8Array>): Promise<Upload>
  /** Makes a file of received bytes; it is durable when this resolves. `also` writes in its transaction. */
  create(
    project_id: string,
    file: NewUpload,
    upload: Upload,
    also?: (tx: PoolClient, file: FileRecord) => Promise<void>,
  ): Promise<FileRecord>
  /** A file that the service itself has made, such as a job's results. */
  createOwn(
    project_id: string,
    file: { filename: string; purpose: string },
    body: AsyncIterable<Uint8Array>,
  ): Promise<FileRecord>
  /** 404 unless the project has it. */
  retrieve(project_id: string, id: string): Promise<FileRecord>
  /** `limit + 1` rows at most; undefined when `after` names none. */
  list(project_id: string, query: FileQuery): Promise<FileRecord[] | undefined>
  delete(project_id: string, id: string): Promise<void>
  content(file: FileRecord): Promise<Readable>
  /** Deletes what has expired; the files themselves were gone at their hour. */
  sweep(): Promise<void>
}

export interface FilesDeps extends Stores {
  readonly log: Logger
  readonly quota: DiskQuota
}

/** The files of all projects. */
export const createFiles = (deps: FilesDeps, limit = FILE_LIMIT): Files => {
  const { db, store } = deps

  const insert = (
    project_id: string,
    staged: Staged,
    row: Pick<NewFile, 'filename' | 'purpose' | 'status' | 'status_details' | 'parent'>,
    expires_after_seconds: number | null,
    also?: (tx: PoolClient, file: FileRecord) => Promise<void>,
  ) =>
    keepObject(deps, project_id, staged, async (tx) => {
      const file = await insertFile(tx, {
        ...row,
        id: newId('file-'),
        project_id,
        sha256: staged.sha256,
        bytes: staged.bytes,
        expires_after_seconds,
      })
      await also?.(tx, file)
      return file
    })

  return {
    receive: (project_id, body) =>
      receive(deps, atMost(limit, deps.quota.watch(project_id, body)), true),

    receiveAgain: (body) => receive(deps, body, false),

    create: async (
      project_id,
      { filename, purpose, expires_after_seconds, parent },
      upload,
      also,
    ) => {
      const problem = purpose === 'fine-tune' ? upload.notJsonl : undefined
      checkName(filename, purpose)
      return insert(
        project_id,
        upload.staged,
        {
          filename,
          purpose,
          status: problem === undefined ? 'processed' : 'error',
          status_details: problem ?? null,
          parent,
        },
        expires_after_seconds ?? (purpose === 'batch' ? 30 * DAY_SECONDS : null),
        async (tx, file) => {
          if (upload.isNew) await deps.quota.confirm(tx, project_id)
          await also?.(tx, file)
        },
      )
    },

    createOwn: async (project_id, file, body) => {
      const staged = await store.stage(body)
      return insert(
        project_id,
        staged,
        { ...file, status: 'processed', status_details: null },
        null,
      )
    },

    retrieve: async (project_id, id) => {
      const file = await findFile(db, project_id, id)
      if (!file) throw noSuchFile(id)
      return file
    },

    list: (project_id, query) => listFiles(db, project_id, query),

    delete: async (project_id, id) => {
      const file = await deleteFile(db, project_id, id)
      if (!file) throw noSuchFile(id)
      // The file is gone for good already; bytes that could not be removed are no failure of that.
      await releaseObject(deps, file).catch((err: unknown) =>
        deps.log.warn({ err, file: id }, 'bytes of a deleted file could not be removed'),
      )
    },

    content: (file) => store.get(objectKey(file.project_id, file.sha256)),

    sweep: () => sweepExpired(deps),
  }
}

const noSuchFile = (id: string) => notFound(`No such File object: ${id}`, { param: 'id' })

const receive = async (
  { store }: FilesDeps,
  body: AsyncIterable<Uint8Array>,
  isNew: boolean,
): Promise<Upload> => {
  const sniffer = createSniffer()
  async function* sniffed() {
    for await (const chunk of body) {
      sniffer.push(chunk)
      yield chunk
    }
  }
  const staged = await store.stage(sniffed())
  return { staged, notJsonl: sniffer.verdict(), isNew }
}

/** The length is not announced: clients send streams in chunks, so it is counted as they come. */
async function* atMost(limit: number, body: AsyncIterable<Uint8Array>) {
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.byteLength
    if (bytes > limit) throw tooLarge(limit)
    yield chunk
  }
}

const tooLarge = (limit: number) =>
  new ApiError(
    413,
    `The file is too large: the limit is ${limit} bytes (${Math.floor(limit / 1024 / 1024)} MB).`,
    { param: 'file', code: 'file_too_large' },
  )

/** What a file for training or for a batch is called. */
export const checkName = (filename: string, purpose: Purpose, param = 'file'): void => {
  if (purpose !== 'fine-tune' && purpose !== 'batch') return
  if (filename.toLowerCase().endsWith('.jsonl')) return
  throw invalidRequest(
    `Invalid file format for purpose '${purpose}': the name of the file must end in .jsonl, but it is '${filename}'.`,
    { param, code: 'invalid_file_format' },
  )
}

/** A batch at a time. What a crash leaves between the two is swept with the objects. */
const sweepExpired = async (deps: FilesDeps): Promise<void> => {
  for (;;) {
    const files = await deleteExpiredFiles(deps.db, 100)
    if (files.length === 0) return
    for (const file of files) {
      deps.log.info({ file: file.id }, 'file expired')
      await releaseObject(deps, file)
    }
  }
}
