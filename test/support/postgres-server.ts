// Vitest's global setup: one Postgres for the run, embedded or the one that TEST_DATABASE_URL names.

import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import type { TestProject } from 'vitest/node'
import { startEmbeddedPostgres } from '../../src/service/db/embedded-postgres.ts'
import { testLog } from './log.ts'

declare module 'vitest' {
  interface ProvidedContext {
    postgresUrl: string
  }
}

/**
 * The embedded server lives in one folder per checkout, so a run that was killed leaves one to be adopted,
 * not one more to be found; it is stopped when the last run of this checkout ends.
 */
export const setup = async (project: TestProject): Promise<() => Promise<void>> => {
  const outside = process.env.TEST_DATABASE_URL
  if (outside) {
    project.provide('postgresUrl', outside)
    return async () => {}
  }
  const checkout = createHash('sha256')
    .update(import.meta.url)
    .digest('hex')
    .slice(0, 10)
  const server = await startEmbeddedPostgres({
    home: join(tmpdir(), `luthier-test-${checkout}`),
    log: testLog,
    settings: { fsync: 'off', max_connections: '200' },
  })
  project.provide('postgresUrl', server.url)
  return async () => {
    await dropLeftOvers(server.url)
    await server.stop()
  }
}

/** Databases of runs that were killed: nobody is connected to them. */
const dropLeftOvers = async (url: string): Promise<void> => {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ datname: string }>(
      `select datname from pg_database d
        where datname like 'test\\_%'
          and not exists (select from pg_stat_activity a where a.datname = d.datname)`,
    )
    for (const { datname } of rows)
      await client.query(`drop database if exists "${datname}"`).catch(() => {})
  } finally {
    await client.end()
  }
}
