// The door to pg: one pool, how its values are read, and transactions. No SQL of any table here.

import { Pool, type PoolClient, types } from 'pg'
import type { Logger } from '../../log.ts'

export type { Pool, PoolClient } from 'pg'

/** What a query function takes: the pool, or the client of a transaction. */
export type Db = Pick<PoolClient, 'query'>

const INT8 = types.builtins.INT8

/** bigint as a number: byte and token counts stay far below 2^53, and one that does not is an error. */
const parseInt8 = (text: string): number => {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new Error(`bigint out of a number's range: ${text}`)
  return value
}

type ParserOf = (oid: number, format?: 'text' | 'binary') => unknown

const getTypeParser = ((oid: number, format?: 'text' | 'binary') =>
  oid === INT8 && format !== 'binary'
    ? parseInt8
    : (types.getTypeParser as ParserOf)(oid, format)) as typeof types.getTypeParser

/** What is not answered by then is given up, be it that the server hangs, be it that another holds a lock. */
const CONNECT_MS = 8000
const QUERY_MS = 15_000

/** Opens the pool. A connection that dies while idle is logged and replaced, not fatal. */
export const openPool = (url: string, log: Logger, max = 10): Pool => {
  const pool = new Pool({
    connectionString: url,
    max,
    application_name: 'luthier',
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: QUERY_MS,
    keepAlive: true,
    idle_in_transaction_session_timeout: 60_000,
    types: { getTypeParser },
  })
  pool.on('error', (err) => {
    // end() does not wait for the last sockets: the database that stops next may cut one.
    if (!pool.ending) log.warn({ err }, 'idle database connection lost')
  })
  // One that dies in a holder's hands fails the holder's next query; the event alone must not end the process.
  pool.on('connect', (client) => {
    client.on('error', (err) => log.debug({ err }, 'database connection lost'))
  })
  return pool
}

/** SQLSTATEs of a server that goes, comes or is full, and of connections that broke. */
const AWAY_STATES = /^(08...|57P0[1-5]|53300|25P03)$/
const AWAY_CALLS = ['connect', 'read', 'write', 'getaddrinfo']
/** The words of pg for what has no code. */
const AWAY_WORDS =
  /^(timeout exceeded when trying to connect|Query read timeout|Connection terminated|Client has encountered a connection error|Client was closed|Cannot use a pool after calling end)/

/** Whether the database could not be reached or did not answer: trying again later may help. */
export const isDatabaseAway = (error: unknown): error is Error => {
  if (!(error instanceof Error)) return false
  const { code, syscall } = error as NodeJS.ErrnoException
  if (code !== undefined && AWAY_STATES.test(code)) return true
  if (error instanceof AggregateError) return error.errors.some(isDatabaseAway)
  return syscall !== undefined ? AWAY_CALLS.includes(syscall) : AWAY_WORDS.test(error.message)
}

/** A foreign key: a row was to refer to another that is not there, or to leave those that refer to it. */
export const isForeignKeyViolation = (error: unknown): boolean =>
  (error as { code?: unknown } | null)?.code === '23503'

/** NUL in a text (22021), its escape in JSON (22P05), and half a surrogate pair's (22P02, with these words). */
export const isUnstorableText = (error: unknown): boolean => {
  const { code, detail } = (error ?? {}) as { code?: unknown; detail?: unknown }
  if (code === '22021' || code === '22P05') return true
  return code === '22P02' && /surrogate/.test(String(detail))
}

/** Runs `body` in one transaction: all of it, or, when it throws, nothing. */
export const transaction = async <T>(
  db: Pool,
  body: (tx: PoolClient) => Promise<T>,
): Promise<T> => {
  const tx = await db.connect()
  let broken: Error | undefined
  try {
    await tx.query('begin')
    const result = await body(tx)
    await tx.query('commit')
    return result
  } catch (error) {
    // A connection that cannot even roll back is not given to the next caller; one that does not answer is not asked.
    if (isDatabaseAway(error)) broken = error
    else
      await tx.query('rollback').catch((cause: unknown) => {
        broken = cause instanceof Error ? cause : new Error(String(cause))
      })
    throw error
  } finally {
    tx.release(broken)
  }
}
