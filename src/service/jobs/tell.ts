// The short way to tell an event of level info.

import type { Db } from '../db/pool.ts'
import { insertWorkEvent } from '../db/work-events.ts'
import { newId } from '../ids.ts'

/** Tells it once, whatever happens to the process in between. */
export const tell = (tx: Db, work_id: string, dedupe_key: string, message: string): Promise<void> =>
  insertWorkEvent(tx, { id: newId('ftevent-'), work_id, dedupe_key, message })
