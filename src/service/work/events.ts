// What is told about a piece of work, and how its owner reads it.

import { badCursor, type Cursor } from '../cursor.ts'
import type { Db } from '../db/pool.ts'
import {
  findWorkEvent,
  insertWorkEvent,
  listWorkEvents,
  type WorkEvent,
} from '../db/work-events.ts'
import { newId } from '../ids.ts'

/** Tells it once, whatever happens to the process in between. */
export const tell = (tx: Db, work_id: string, dedupe_key: string, message: string): Promise<void> =>
  insertWorkEvent(tx, { id: newId('ftevent-'), work_id, dedupe_key, message })

/** Tells once why the work has failed; what is not the message is the event's data. */
export const tellFailure = (
  tx: Db,
  work_id: string,
  { message, ...data }: { message: string; code: string; param: string | null; errors?: unknown },
): Promise<void> =>
  insertWorkEvent(tx, {
    id: newId('ftevent-'),
    work_id,
    dedupe_key: 'failed',
    level: 'error',
    message,
    data,
  })

/** Newest first; one more than `limit`, where there are more. Throws where `after` is none of its events. */
export async function eventsOf(
  db: Db,
  work_id: string,
  { after, limit }: Cursor,
): Promise<WorkEvent[]> {
  if (after !== undefined && !(await findWorkEvent(db, work_id, after))) throw badCursor(after)
  return listWorkEvents(db, { work_id, after, limit: limit + 1 })
}
