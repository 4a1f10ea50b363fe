import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { migrate, migrationsFolder } from '../../../src/service/db/migrate.ts'
import { transaction } from '../../../src/service/db/pool.ts'
import { testLog } from '../../support/log.ts'
import { emptyDatabase, freshDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await freshDatabase()
})
afterAll(() => database[Symbol.asyncDispose]())

test('a migration that was merged is never edited', async () => {
  const names = (await readdir(migrationsFolder)).filter((name) => name.endsWith('.sql')).sort()
  let sums = ''
  for (const name of names) {
    const text = await readFile(join(migrationsFolder, name))
    sums += `${createHash('sha256').update(text).digest('hex')}  ${name}\n`
  }
  // A new migration adds its line (`cd migrations && sha256sum *.sql > SHA256SUMS`); no line changes.
  expect(sums).toBe(await readFile(join(migrationsFolder, 'SHA256SUMS'), 'utf8'))
})

test('three processes that migrate at once run every migration once', async () => {
  await using empty = await emptyDatabase()
  const runs = await Promise.all([1, 2, 3].map(() => migrate(empty.url, testLog)))
  const names = (await readdir(migrationsFolder)).filter((name) => name.endsWith('.sql')).sort()
  const files = names.map((name) => name.replace(/\.sql$/, ''))
  expect(runs.filter((run) => run.length > 0)).toEqual([files])
  const { rows } = await empty.db.query('select name from migrations order by id')
  expect(rows.map((row) => row.name)).toEqual(files)
})

test('a transaction that throws leaves nothing and gives its connection back', async () => {
  const { db } = database
  await expect(
    transaction(db, async (tx) => {
      await tx.query(`insert into organizations (id, slug, name) values ('org-x', 'x', 'x')`)
      throw new Error('no')
    }),
  ).rejects.toThrow('no')
  const { rows } = await db.query(`select count(*) as n from organizations where id = 'org-x'`)
  expect(rows).toEqual([{ n: 0 }])
  expect(db.idleCount).toBe(db.totalCount)
})
