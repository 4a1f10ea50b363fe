// A fresh, migrated database for a test file, cloned from a template that is migrated once.

import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Client } from 'pg'
import { inject } from 'vitest'
import { migrate, migrationsFolder } from '../../src/service/db/migrate.ts'
import { openPool, type Pool } from '../../src/service/db/pool.ts'
import { testLog } from './log.ts'

export interface TestDatabase extends AsyncDisposable {
  readonly db: Pool
  /** For code that opens its own connections; `openPool(url, log)`, `DATABASE_URL`. */
  readonly url: string
}

/** Clones the template. Call it in `beforeAll` and dispose it in `afterAll`, or `await using` it. */
export const freshDatabase = async (): Promise<TestDatabase> => {
  const template = await migratedTemplate()
  return openDatabase(`template "${template}"`)
}

/** A database with nothing in it, for tests of the migrations themselves. */
export const emptyDatabase = (): Promise<TestDatabase> => openDatabase('template template0')

const openDatabase = async (from: string): Promise<TestDatabase> => {
  const name = `test_${randomBytes(6).toString('hex')}`
  await asOwner((client) => client.query(`create database "${name}" ${from}`))
  const url = urlOf(name)
  const db = openPool(url, testLog)
  return {
    db,
    url,
    [Symbol.asyncDispose]: async () => {
      if (!db.ended) await db.end()
      await asOwner((client) => client.query(`drop database if exists "${name}" with (force)`))
    },
  }
}

const migratedTemplate = async (): Promise<string> => {
  const hash = createHash('sha256')
  for (const file of (await readdir(migrationsFolder)).sort())
    if (file.endsWith('.sql')) hash.update(await readFile(join(migrationsFolder, file)))
  const name = `template_${hash.digest('hex').slice(0, 16)}`
  await asOwner(async (client) => {
    // Several runs may share the server: one of them makes the template, the others wait.
    await client.query('select pg_advisory_lock(732001)')
    const { rowCount } = await client.query('select from pg_database where datname = $1', [name])
    if (rowCount) return
    const making = `${name}_making`
    await client.query(`drop database if exists "${making}" with (force)`)
    await client.query(`create database "${making}" template template0`)
    await migrate(urlOf(making), testLog)
    await client.query(`alter database "${making}" rename to "${name}"`)
  })
  return name
}

const asOwner = async (use: (client: Client) => Promise<unknown>): Promise<void> => {
  const client = new Client({ connectionString: inject('postgresUrl') })
  await client.connect()
  try {
    await use(client)
  } finally {
    await client.end()
  }
}

const urlOf = (database: string): string => {
  const url = new URL(inject('postgresUrl'))
  url.pathname = `/${database}`
  return url.href
}
