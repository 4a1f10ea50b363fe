// The table `ended_cursors`: where rows stood that are gone. The rows' own tables write it as they delete.

import type { Db } from './pool.ts'

/** Forgets those that nobody can still be paging with. */
export const removeEndedCursors = async (db: Db): Promise<void> => {
  await db.query(`delete from ended_cursors where ended_at < now() - interval '1 day'`)
}
