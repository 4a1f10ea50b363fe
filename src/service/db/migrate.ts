// Brings a database to the newest migration. Plain SQL, forward only; racing processes wait in line.

import { fileURLToPath } from 'node:url'
import { runner } from 'node-pg-migrate'
import { Client } from 'pg'
import type { Logger } from '../../log.ts'

/** Where the migrations lie; the same from `src/` and from `dist/`. */
export const migrationsFolder = fileURLToPath(new URL('../../../migrations', import.meta.url))

/** Runs what has not run yet and returns its names; safe when several processes start at once. */
export const migrate = async (url: string, log: Logger): Promise<string[]> => {
  const client = new Client({ connectionString: url, application_name: 'luthier migrate' })
  await client.connect()
  try {
    const done = await runner({
      dbClient: client,
      dir: migrationsFolder,
      ignorePattern: '(?!.*\\.sql$).*',
      migrationsTable: 'migrations',
      direction: 'up',
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
