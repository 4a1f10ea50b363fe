// The table `workers`: which processes compute, where they answer, and what they have loaded.

import type { Db } from './pool.ts'

export interface WorkerRecord {
  readonly id: string
  readonly url: string
  readonly token: string
  /** Ids of base models and hashes of adapters. */
  readonly resident: readonly string[]
  /** Choices under way or waiting. */
  readonly taken: number
}

/** The worker lives, and this is what it has. */
export async function renewWorker(db: Db, worker: WorkerRecord): Promise<void> {
  await db.query(
    `insert into workers (id, url, token, resident, taken) values ($1, $2, $3, $4, $5)
     on conflict (id) do update
        set resident = excluded.resident, taken = excluded.taken, heartbeat_at = clock_timestamp()`,
    [worker.id, worker.url, worker.token, worker.resident, worker.taken],
  )
}

/** Those whose last heartbeat is not older. */
export async function listWorkers(db: Db, alive_seconds: number): Promise<WorkerRecord[]> {
  const { rows } = await db.query<WorkerRecord>(
    `select id, url, token, resident, taken from workers
      where heartbeat_at > clock_timestamp() - make_interval(secs => $1)
      order by started_at, id`,
    [alive_seconds],
  )
  return rows
}

export async function deleteWorker(db: Db, id: string): Promise<void> {
  await db.query('delete from workers where id = $1', [id])
}

/** Forgets those that went without a word. */
export async function deleteSilentWorkers(db: Db, silent_seconds: number): Promise<void> {
  await db.query(
    `delete from workers where heartbeat_at < clock_timestamp() - make_interval(secs => $1)`,
    [silent_seconds],
  )
}
