// What can be asked about batches: create, look, cancel. Answering their lines is `scheduler/run-batch.ts`'s.

import { invalidRequest, notFound } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { badCursor, type Cursor } from '../cursor.ts'
import { type Batch, cancelBatch, findBatch, insertBatch, listBatches } from '../db/batches.ts'
import { findFile } from '../db/files.ts'
import { type Pool, transaction } from '../db/pool.ts'
import { insertWork, requestPause } from '../db/work.ts'
import { newId } from '../ids.ts'

export const BATCH = 'batch'

/** What may be asked in a batch: OpenAI's, and our classifications. */
export const BATCH_ENDPOINTS = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/embeddings',
  '/v1/responses',
  '/v1/moderations',
  '/v1/classifications',
] as const
export type BatchEndpoint = (typeof BATCH_ENDPOINTS)[number]

/** How long a batch may take; OpenAI has this one alone. */
export const COMPLETION_WINDOWS = { '24h': 24 * 60 * 60 } as const

/** 200 MB, as OpenAI's limit for the input of a batch. */
const MAX_INPUT_BYTES = 200 * 1024 * 1024
const MONTH_SECONDS = 30 * 24 * 60 * 60

export interface CreateBatch {
  input_file_id: string
  endpoint: BatchEndpoint
  completion_window: keyof typeof COMPLETION_WINDOWS
  output_expires_after_seconds?: number
  metadata?: Record<string, string> | null
}

export interface Batches {
  create(project_id: string, request: CreateBatch): Promise<Batch>
  retrieve(project_id: string, id: string): Promise<Batch>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: Cursor): Promise<Batch[]>
  /** Asks for its end: what is answered until then comes into its files. */
  cancel(project_id: string, id: string): Promise<Batch>
}

export interface BatchesDeps {
  db: Pool
  log: Pick<Logger, 'info'>
}

/** The batches of all projects. */
export function createBatches({ db, log }: BatchesDeps): Batches {
  const retrieve = async (project_id: string, id: string): Promise<Batch> => {
    const batch = await findBatch(db, project_id, id)
    if (!batch) throw notFound(`No batch found with id '${id}'.`, { param: 'batch_id' })
    return batch
  }

  return {
    retrieve,

    async create(project_id, request) {
      const { input_file_id, endpoint, completion_window } = request
      const input_sha256 = await inputOf(db, project_id, input_file_id)
      const id = newId('batch_')
      const batch = await transaction(db, async (tx) => {
        await insertWork(tx, { id, kind: BATCH, project_id })
        return insertBatch(tx, {
          id,
          project_id,
          endpoint,
          completion_window,
          window_seconds: COMPLETION_WINDOWS[completion_window],
          input_file_id,
          input_sha256,
          output_expires_after_seconds: request.output_expires_after_seconds ?? MONTH_SECONDS,
          metadata: request.metadata ?? null,
        })
      })
      log.info({ batch: id, project: project_id, endpoint }, 'batch created')
      return batch
    },

    async list(project_id, { after, limit }) {
      if (after !== undefined && !(await findBatch(db, project_id, after))) throw badCursor(after)
      return listBatches(db, { project_id, after, limit: limit + 1 })
    },

    async cancel(project_id, id) {
      await retrieve(project_id, id)
      const cancelled = await transaction(db, async (tx) => {
        // Whoever works on it hears of it so, puts what there is into files, and ends it. The work first, as its
        // holder does it: neither waits for the other then.
        await requestPause(tx, id)
        const batch = await cancelBatch(tx, id)
        if (batch) return batch
        const ended = await findBatch(tx, project_id, id)
        throw invalidRequest(`Cannot cancel a batch with status '${ended?.status}'.`, {
          // Not a 409: clients try those again, and this will not change.
          code: 'invalid_batch_state',
        })
      })
      log.info({ batch: id }, 'batch is being cancelled')
      return cancelled
    },
  }
}

async function inputOf(db: Pool, project_id: string, id: string): Promise<string> {
  const where = { param: 'input_file_id', code: 'invalid_file' }
  const file = await findFile(db, project_id, id)
  if (!file) throw invalidRequest(`The file \`${id}\` does not exist.`, where)
  if (file.purpose !== 'batch')
    throw invalidRequest(
      `The file \`${id}\` has the purpose '${file.purpose}'; the input of a batch has the purpose 'batch'.`,
      where,
    )
  if (file.bytes > MAX_INPUT_BYTES)
    throw invalidRequest(
      `The file \`${id}\` has ${file.bytes} bytes; the input of a batch has at most ${MAX_INPUT_BYTES}.`,
      where,
    )
  return file.sha256
}
