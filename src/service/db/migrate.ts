// Brings a database to the newest migration. Plain SQL, forward only; racing processes wait in line.

import { readdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { runner } from 'node-pg-migrate'
import { Client } from 'pg'
import type { Logger } from '../../log.ts'

/** Where the migrations lie; the same from `src/` and from `dist/`. */
export const migrationsFolder = fileURLToPath(new URL('../../../migrations', import.meta.url))

/** All migrations in their order. */
export const migrationNames = async (): Promise<string[]> =>
  (await readdir(migrationsFolder))
    .filter((name) => name.endsWith('.sql'))
    .map((name) => name.slice(0, -'.sql'.length))
    .sort()

/**
 * Runs what has not run yet and returns its names; safe when several processes start at once. `first` keeps an
 * empty database at the first so many, which only a restore wants.
 */
export const migrate = async (url: string, log: Logger, first?: number): Promise<string[]> => {
  const client = new Client({ connectionString: url, application_name: 'luthier migrate' })
  await client.connect()
  try {
    const count = first === undefined ? undefined : first - (await countApplied(client))
    if (count !== undefined && count <= 0) return []
    const done = await runner({
      dbClient: client,
      dir: migrationsFolder,
      ignorePattern: '(?!.*\\.sql$).*',
      migrationsTable: 'migrations',
      direction: 'up',
      ...(count !== undefined && { count }),
      advisoryLockMode: 'wait',
      verbose: false,
      logger: {
        debug: (message) => log.debug(message),
        info: (message) => log.debug(message),
        warn: (message) => log.warn(message),
        error: (message) => log.error(message),
      },
    })
    const names = done.map((migration) => migration.name)
    if (names.length > 0) log.info({ migrations: names }, 'database migrated')
    return names
  } finally {
    await client.end()
  }
}

const countApplied = async (client: Client): Promise<number> => {
  const { rows: found } = await client.query(`select to_regclass('migrations') is not null as is`)
  if (!found[0].is) return 0
  const { rows } = await client.query('select count(*)::integer as n from migrations')
  return rows[0].n
}
