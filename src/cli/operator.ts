// What the operator's commands share: the settings' database, and a table on the terminal.

import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { ensureFirstProject } from '../service/auth/keys.ts'
import { openDatabase } from '../service/db/database.ts'
import type { Pool } from '../service/db/pool.ts'

/** Runs `use` on the database of the settings; a server may run on it meanwhile. */
export const withOrganization = async (
  use: (db: Pool, organization_id: string, default_project: string) => Promise<void>,
): Promise<void> => {
  const config = readConfig(process.env)
  await using database = await openDatabase(config, createLog('warn', 2))
  const { organization_id, project_id } = await ensureFirstProject(database.db)
  await use(database.db, organization_id, project_id)
}

/** A time as tables show it: to the second, UTC. */
export const timeText = (time: Date | null): string =>
  time === null ? '' : `${time.toISOString().slice(0, 19)}Z`

/** Rows as columns of equal width; nothing behind the last. */
export const table = (rows: readonly (readonly string[])[]): string => {
  const widths = rows[0]?.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0))) ?? []
  const line = (row: readonly string[]) =>
    row
      .map((text, at) => text.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd()
  return rows.map(line).join('\n')
}
