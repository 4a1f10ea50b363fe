// The table `idempotency_keys`: answers that are given again to a request that is sent again.

import type { Db } from './pool.ts'

/** Which request it is: the client's key, and what it was sent with. */
export interface RequestKey {
  readonly project_id: string
  readonly key: string
  /** SHA-256 of method, path and body. */
  readonly request_hash: Buffer
}

export interface KeptResponse {
  readonly request_hash: Buffer
  readonly response: unknown
}

/** For so long the same key gets the same answer. */
const KEPT = "interval '24 hours'"

/** What was answered to the request with this key. */
export async function findResponse(
  db: Db,
  { project_id, key }: Omit<RequestKey, 'request_hash'>,
): Promise<KeptResponse | undefined> {
  const { rows } = await db.query<KeptResponse>(
    `select request_hash, response from idempotency_keys
      where project_id = $1 and key = $2 and created_at > clock_timestamp() - ${KEPT}`,
    [project_id, key],
  )
  return rows[0]
}

/** Until the transaction ends, another request with this key waits. */
export async function lockRequestKey(
  tx: Db,
  { project_id, key }: Omit<RequestKey, 'request_hash'>,
): Promise<void> {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 1))', [
    `idempotency ${project_id}/${key}`,
  ])
}

/** Keeps the answer, and forgets what has had its time. */
export async function insertResponse(tx: Db, kept: RequestKey & KeptResponse): Promise<void> {
  await tx.query(
    `delete from idempotency_keys
      where (project_id, key) in (select project_id, key from idempotency_keys
                                   where created_at <= clock_timestamp() - ${KEPT}
                                   limit 100 for update skip locked)`,
  )
  await tx.query(
    `insert into idempotency_keys (project_id, key, request_hash, response) values ($1, $2, $3, $4)
     on conflict (project_id, key) do update
        set request_hash = excluded.request_hash, response = excluded.response,
            created_at = clock_timestamp()`,
    [kept.project_id, kept.key, kept.request_hash, JSON.stringify(kept.response)],
  )
}
