// The table `work_events`: what is told about work, each thing once.

import type { Db } from './pool.ts'

export interface WorkEvent {
  id: string
  seq: number
  work_id: string
  level: 'info' | 'warn' | 'error'
  type: 'message' | 'metrics'
  message: string
  data: Record<string, unknown>
  created_at: Date
}

export type NewWorkEvent = Pick<WorkEvent, 'id' | 'work_id' | 'message'> &
  Partial<Pick<WorkEvent, 'level' | 'type' | 'data'>> & { dedupe_key: string }

/** Tells it, unless an event with this key was told before. */
export async function insertWorkEvent(tx: Db, event: NewWorkEvent): Promise<void> {
  await tx.query(
    `insert into work_events (id, work_id, dedupe_key, level, type, message, data)
     values ($1, $2, $3, $4, $5, $6, $7)
     on conflict (work_id, dedupe_key) do nothing`,
    [
      event.id,
      event.work_id,
      event.dedupe_key,
      event.level ?? 'info',
      event.type ?? 'message',
      event.message,
      JSON.stringify(event.data ?? {}),
    ],
  )
}

/** Newest first, older than the event `after`; one more than `limit` tells that there are more. */
export async function listWorkEvents(
  db: Db,
  { work_id, after, limit }: { work_id: string; after?: string | undefined; limit: number },
): Promise<WorkEvent[]> {
  const { rows } = await db.query<WorkEvent>(
    `select id, seq, work_id, level, type, message, data, created_at from work_events
      where work_id = $1
        and ($2::text is null or seq < (select seq from work_events where work_id = $1 and id = $2))
      order by seq desc
      limit $3`,
    [work_id, after ?? null, limit],
  )
  return rows
}

/** Whether the work has an event of this id. */
export async function findWorkEvent(db: Db, work_id: string, id: string): Promise<boolean> {
  const { rowCount } = await db.query('select from work_events where work_id = $1 and id = $2', [
    work_id,
    id,
  ])
  return rowCount === 1
}
