// The database that the settings name: an outside Postgres, or the embedded one, adopted or started.

import { mkdir } from 'node:fs/promises'
import type { Logger } from '../../log.ts'
import { startEmbeddedPostgres } from './embedded-postgres.ts'
import { migrate } from './migrate.ts'
import { openPool, type Pool } from './pool.ts'

export interface DatabaseSettings {
  readonly home: string
  /** Undefined: the embedded Postgres under `home`. */
  readonly databaseUrl: string | undefined
}

/** Disposed, it closes the pool, and stops the embedded Postgres where nobody else uses it. */
export interface Database extends AsyncDisposable {
  readonly db: Pool
  readonly url: string
}

/** Opens it, also while a server runs on it. Migrated, unless told otherwise. */
export const openDatabase = async (
  { home, databaseUrl }: DatabaseSettings,
  log: Logger,
  options: { migrate: boolean } = { migrate: true },
): Promise<Database> => {
  await mkdir(home, { recursive: true })
  const embedded =
    databaseUrl === undefined ? await startEmbeddedPostgres({ home, log }) : undefined
  const url = databaseUrl ?? embedded!.url
  try {
    if (options.migrate) await migrate(url, log)
    const db = openPool(url, log)
    return {
      db,
      url,
      [Symbol.asyncDispose]: async () => {
        await db.end()
        await embedded?.stop()
      },
    }
  } catch (error) {
    await embedded?.stop()
    throw error
  }
}
