// A backup of a used database, read into empty ones.

import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { backup } from '../../../src/service/backup/backup.ts'
import { backUpToFile, restoreFromFile } from '../../../src/service/backup/file.ts'
import { readTar } from '../../../src/service/backup/tar.ts'
import { migrate } from '../../../src/service/db/migrate.ts'
import type { Pool } from '../../../src/service/db/pool.ts'
import { listTables } from '../../../src/service/db/snapshot.ts'
import { openFolderStore } from '../../../src/service/storage/folder.ts'
import { objectKey } from '../../../src/service/storage/object-store.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { emptyDatabase } from '../../support/postgres.ts'
import { suiteFolder } from '../../support/temporary.ts'

const folder = suiteFolder()
const file = join(folder, 'whole.backup')
let service: TestApi
const contents = new Map<string, string>()
beforeAll(async () => {
  service = await openTestApi()
  for (let i = 0; i < 5; i++) {
    const text = `{"prompt":"${'long '.repeat(50_000 * i)}","completion":"ü ${i}"}\n`
    contents.set(await service.upload(text), text)
  }
  const [training_file] = contents.keys()
  for (let i = 0; i < 250; i++)
    await service.post('/v1/fine_tuning/jobs', {
      model: 'tiny',
      training_file,
      metadata: { quote: `"'\\ ${i}`, 'new line': 'a\nb' },
    })
  // What JSON itself could not tell apart: no value, and the value null.
  await service.db.query(
    `update fine_tuning_jobs set metadata = case when seq % 2 = 0 then 'null'::jsonb end where seq < 9`,
  )
  await backUpToFile(service.stores, file)
})
afterAll(() => service?.[Symbol.asyncDispose]())

const emptyTarget = async (name: string) => {
  const database = await emptyDatabase()
  return { database, store: await openFolderStore(join(folder, name)), log: testLog }
}

const everyRow = async (db: Pool) => {
  const found: Record<string, string[]> = {}
  for (const { name } of await listTables(db)) {
    const { rows } = await db.query(`select t::text as row from ${name} t order by 1`)
    found[name] = rows.map(({ row }) => row)
  }
  return found
}

test('rows and objects come back as they were, and counters go on', async () => {
  await using database = await emptyDatabase()
  const store = await openFolderStore(join(folder, 'restored'))
  const target = { database, store, log: testLog }
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  const tally = await restoreFromFile(target, file)
  expect(tally.objects).toBe(contents.size)
  const rows = await everyRow(database.db)
  expect(rows).toEqual(await everyRow(service.db))
  expect(rows.fine_tuning_jobs).toHaveLength(250)
  for (const [id, text] of contents) {
    const found = await database.db.query('select project_id, sha256 from files where id = $1', [
      id,
    ])
    const { project_id, sha256 } = found.rows[0]
    const chunks = []
    for await (const chunk of await store.get(objectKey(project_id, sha256))) chunks.push(chunk)
    expect(Buffer.concat(chunks).toString()).toBe(text)
  }
  const { rows: next } = await database.db.query(
    `insert into work (id, kind, project_id) values ('x', 'y', $1) returning seq`,
    [service.project_id],
  )
  expect(next[0].seq).toBeGreaterThan(250)
  // References hold again.
  await expect(database.db.query('delete from projects')).rejects.toThrow('foreign key')
})

test('a target with rows is refused, and so is a file that exists', async () => {
  await using database = await emptyDatabase()
  await migrate(database.url, testLog)
  await database.db.query(`insert into organizations (id, slug, name) values ('org-1', 'x', 'x')`)
  const target = { database, store: await openFolderStore(join(folder, 'used')), log: testLog }
  await expect(restoreFromFile(target, file)).rejects.toThrow(
    'The database is not empty: there are 1 rows in organizations.',
  )
  await expect(backUpToFile(service.stores, file)).rejects.toThrow('exists already')
})

test('a damaged or cut backup leaves nothing behind', async () => {
  const bytes = await readFile(file)
  const objectAt = bytes.indexOf('ü 2')
  const rowAt = bytes.indexOf('new line')
  const broken: [string, Buffer, string][] = [
    ['an object', flipped(bytes, objectAt), 'damaged'],
    ['a row', flipped(bytes, rowAt), 'damaged'],
    ['the end', bytes.subarray(0, bytes.length - 3 * 512), 'cut'],
    ['the middle', bytes.subarray(0, bytes.length / 2), 'cut'],
    ['the beginning', Buffer.from('{"no": "tar"}'), 'cut'],
  ]
  await using database = await emptyDatabase()
  const target = { database, store: await openFolderStore(join(folder, 'broken')), log: testLog }
  for (const [what, content, message] of broken) {
    const path = join(folder, 'broken.backup')
    await writeFile(path, content)
    await expect(restoreFromFile(target, path), what).rejects.toThrow(message)
    await rm(path)
    const { objects } = await target.store.list(service.project_id)
    expect(objects, what).toEqual([])
  }
  for (const rows of Object.values(await everyRow(database.db))) expect(rows).toEqual([])
  // And the same target takes the whole one.
  await restoreFromFile(target, file)
})

test('a backup of another format or of a newer server says so', async () => {
  const bytes = (await readFile(file)).toString('latin1')
  const target = await emptyTarget('newer')
  const newer = join(folder, 'newer.backup')
  await writeFile(newer, bytes.replace('"version": 1', '"version": 9'), 'latin1')
  await expect(restoreFromFile(target, newer)).rejects.toThrow('The backup has the format 9')
  await writeFile(newer, bytes.replace('"0001_initial"', '"0001_unknown"'), 'latin1')
  await expect(restoreFromFile(target, newer)).rejects.toThrow('made by a newer Luthier')
  await target.database[Symbol.asyncDispose]()
})

test('what is deleted and written while the backup runs is in it as it was at its beginning', async () => {
  const id = await service.upload('{"prompt":"short lived","completion":"x"}\n')
  const { rows } = await service.db.query('select sha256 from files where id = $1', [id])
  const key = objectKey(service.project_id, rows[0].sha256)
  const running = backup(service.stores, new Date())
  const chunks = [(await running.next()).value as Buffer]
  expect((await service.delete(`/v1/files/${id}`)).status).toBe(200)
  const later = await service.upload('{"prompt":"too late","completion":"x"}\n')
  for await (const chunk of running) chunks.push(chunk)

  const names: string[] = []
  let files = ''
  for await (const { name, body } of readTar(Readable.from(chunks))) {
    names.push(name)
    if (name.startsWith('tables/files/')) for await (const chunk of body) files += chunk
  }
  expect(files).toContain(id)
  expect(files).not.toContain(later)
  expect(names).toContain(`objects/${key}`)
})
const flipped = (bytes: Buffer, at: number): Buffer => {
  const copy = Buffer.from(bytes)
  copy[at] = copy[at]! ^ 1
  return copy
}
