// Idempotency-Key: a POST that is sent again under the same key gets the answer of the first and does nothing.
// The answer is kept in the transaction that did the work, so that a crash leaves both or neither.

import { createHash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { invalidRequest } from '../../errors.ts'
import {
  findResponse,
  insertResponse,
  type KeptResponse,
  lockRequestKey,
  type RequestKey,
} from '../db/idempotency-keys.ts'
import { type Pool, type PoolClient, transaction } from '../db/pool.ts'

/** Runs what writes, in one transaction. */
export type Commit<T> = (write: (tx: PoolClient) => Promise<T>) => Promise<T>

const MAX_LENGTH = 255

/** For the description of a route that honours the key. Its length is judged where it is read. */
export const IdempotencyHeaders = Type.Object({
  'Idempotency-Key': Type.Optional(
    Type.String({
      description: `1 to ${MAX_LENGTH} characters. For 24 hours, the same request under the same key gets the first one's answer and does nothing.`,
    }),
  ),
})

/**
 * Answers with what `act` comes to, or, under a key that was used, with what it came to then. `act` does its writing
 * in one call of `commit`; what fails is kept nowhere and may be tried again with the same key.
 *
 *     idempotent(db, request, (commit) => jobs.create(caller, body, commit), presentJob)
 */
export async function idempotent<T, Reply>(
  db: Pool,
  request: FastifyRequest,
  act: (commit: Commit<T>) => Promise<T>,
  present: (result: T) => Reply,
): Promise<Reply> {
  const wanted = requestKey(request)
  if (!wanted) return present(await act((write) => transaction(db, write)))

  const before = await findResponse(db, wanted)
  if (before) return again<Reply>(wanted, before)
  try {
    const result = await act((write) =>
      transaction(db, async (tx) => {
        await lockRequestKey(tx, wanted)
        const meanwhile = await findResponse(tx, wanted)
        if (meanwhile) throw new Answered(meanwhile)
        const result = await write(tx)
        await insertResponse(tx, { ...wanted, response: present(result) })
        return result
      }),
    )
    return present(result)
  } catch (error) {
    if (error instanceof Answered) return again<Reply>(wanted, error.kept)
    throw error
  }
}

/** Another request with the same key was quicker. */
class Answered extends Error {
  readonly kept: KeptResponse
  constructor(kept: KeptResponse) {
    super('The request was answered before.')
    this.kept = kept
  }
}

function again<Reply>({ request_hash }: RequestKey, kept: KeptResponse): Reply {
  if (!request_hash.equals(kept.request_hash))
    throw invalidRequest(
      'The Idempotency-Key was used before with another request. Send a new key with a new request.',
      { code: 'idempotency_key_reused' },
    )
  return kept.response as Reply
}

function requestKey(request: FastifyRequest): RequestKey | undefined {
  const key = request.headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key !== 'string' || key === '' || key.length > MAX_LENGTH)
    throw invalidRequest(`The Idempotency-Key must have 1 to ${MAX_LENGTH} characters.`, {
      code: 'invalid_idempotency_key',
    })
  const what = JSON.stringify([request.method, request.url, sorted(request.body)])
  const request_hash = createHash('sha256').update(what).digest()
  return { project_id: request.caller.project_id, key, request_hash }
}

/** The order of a body's fields says nothing. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, field]) => [name, sorted(field)]),
  )
}
