// LISTEN on a connection of its own. A hint only: whoever misses one finds out by polling.

import type { Logger } from '../../log.ts'
import type { Pool, PoolClient } from '../db/pool.ts'

const RETRY_MS = 1000

/** Calls `heard` with the payload of every notification on the channel, until disposed. */
export function listen(
  db: Pool,
  channel: string,
  { heard, log }: { heard: (payload: string) => void; log: Logger },
): AsyncDisposable {
  let closed = false
  let client: PoolClient | undefined
  let timer: NodeJS.Timeout | undefined

  const lost = (lostClient: PoolClient, cause: unknown) => {
    if (client !== lostClient) return
    client = undefined
    lostClient.release(true)
    if (closed) return
    log.warn({ err: cause, channel }, 'hints from the database are interrupted')
    retry()
  }
  const retry = () => {
    timer = setTimeout(() => {
      connecting = connect()
    }, RETRY_MS)
  }
  async function connect() {
    try {
      const connected = await db.connect()
      if (closed) return connected.release(true)
      client = connected
      connected.on('notification', ({ payload }) => heard(payload ?? ''))
      connected.on('error', (cause) => lost(connected, cause))
      connected.on('end', () => lost(connected, undefined))
      await connected.query(`listen ${channel}`)
    } catch (cause) {
      if (client) lost(client, cause)
      else if (!closed) retry()
    }
  }
  let connecting = connect()

  return {
    async [Symbol.asyncDispose]() {
      closed = true
      clearTimeout(timer)
      await connecting
      const last = client
      client = undefined
      last?.release(true)
    },
  }
}
