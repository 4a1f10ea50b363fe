// A worker makes itself known to API processes, again and again, until it stops.

import { randomBytes } from 'node:crypto'
import type { Logger } from '../../log.ts'
import type { Db } from '../db/pool.ts'
import { deleteSilentWorkers, deleteWorker, renewWorker } from '../db/workers.ts'
import { newId } from '../ids.ts'
import type { Serving } from './serving.ts'

const BEAT_MS = 1000
const SILENT_SECONDS = 300

export interface RegistrationOptions {
  db: Db
  log: Logger
  /** Where API processes reach this one. */
  url: string
  /** What they must show: `newWorkerToken()`. */
  token: string
  serving: Pick<Serving, 'resident' | 'taken'>
}

/** A secret that lasts as long as the process. */
export const newWorkerToken = (): string => randomBytes(32).toString('base64url')

/** Registers and keeps the registration fresh; disposed, it takes it back. */
export async function registerWorker(options: RegistrationOptions): Promise<AsyncDisposable> {
  const { db, log, url, token, serving } = options
  const id = newId('worker_')
  const beat = () =>
    renewWorker(db, { id, url, token, resident: serving.resident, taken: serving.taken })
  await deleteSilentWorkers(db, SILENT_SECONDS)
  await beat()
  log.info({ worker: id, url }, 'worker registered')

  let stopped = false
  let timer: NodeJS.Timeout
  let beating = Promise.resolve()
  const next = () => {
    timer = setTimeout(() => {
      beating = beat()
        .catch((err) => log.warn({ worker: id, err }, 'worker cannot renew its registration'))
        .then(() => {
          if (!stopped) next()
        })
    }, BEAT_MS)
  }
  next()
  return {
    async [Symbol.asyncDispose]() {
      stopped = true
      clearTimeout(timer)
      await beating
      await deleteWorker(db, id).catch((err) =>
        log.warn({ worker: id, err }, 'worker cannot take its registration back'),
      )
    },
  }
}
