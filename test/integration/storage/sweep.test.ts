import { spawn } from 'node:child_process'
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { clearLeftovers } from '../../../src/service/storage/cache-leftovers.ts'
import { objectKey, putObject } from '../../../src/service/storage/object-store.ts'
import { sweepObjects } from '../../../src/service/storage/sweep.ts'
import { testLog } from '../../support/log.ts'
import type { UploadsRun } from '../../support/run-uploads.ts'
import { startService, type TestService } from '../../support/service.ts'
import { temporaryFolder } from '../../support/temporary.ts'

let service: TestService
beforeAll(async () => {
  service = await startService()
})
afterAll(() => service[Symbol.asyncDispose]())

const sweep = (grace_ms = 0) =>
  sweepObjects(service.stores, { grace_ms, stale_ms: 60_000, log: testLog })

const upload = async (project: string, text: string) => {
  const received = await service.files.receive(project, Readable.from([Buffer.from(text)]))
  return service.files.create(project, { filename: 'a.txt', purpose: 'user_data' }, received)
}

test('an object that nothing refers to is swept after its grace, one that is referred to never', async () => {
  const { db, store, project_id } = service
  const kept = await upload(project_id, 'kept')
  // A crash after a deletion, before its object was released.
  const lost = await upload(project_id, 'lost')
  await db.query('delete from files where id = $1', [lost.id])
  // A crash after bytes were kept, before their row was written.
  await putObject(store, project_id, Readable.from([Buffer.from('unknown')]))
  const names = () => service.stored()
  expect(await names()).toHaveLength(3)
  await sweep(3_600_000)
  expect((await names()).sort()).toEqual(
    [kept, lost].map((file) => objectKey(project_id, file.sha256)).sort(),
  )
  await sweep()
  expect(await names()).toEqual([objectKey(project_id, kept.sha256)])
  const { rows } = await db.query('select sha256 from objects')
  expect(rows).toEqual([{ sha256: kept.sha256 }])
  await service.files.delete(project_id, kept.id)
})

test('every table that refers to objects keeps them: the sweep asks the catalog', async () => {
  const { db, project_id } = service
  const { sha256, id } = await upload(project_id, 'of a new table')
  await db.query(
    `create table novelties (project text, bytes_of text, foreign key (project, bytes_of) references objects (project_id, sha256))`,
  )
  await db.query('insert into novelties values ($1, $2)', [project_id, sha256])
  await db.query('delete from files where id = $1', [id])
  await sweep()
  expect(await service.stored()).toEqual([objectKey(project_id, sha256)])
  await db.query('drop table novelties')
  await sweep()
  expect(await service.stored()).toEqual([])
})

const PLACES = ['staged', 'kept', 'written', 'row gone', 'deleted'] as const
const script = fileURLToPath(new URL('../../support/run-uploads.ts', import.meta.url))

/** Runs the process to its end, whatever that is; gives what it said. */
const runUploads = async (run: UploadsRun, killAfter?: number) => {
  const child = spawn(process.execPath, ['--import', 'tsx', script, JSON.stringify(run)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said: { uploaded?: string; project?: string; deleted?: string; ended?: true }[] = []
  const ended = new Promise<NodeJS.Signals | null>((done) =>
    child.once('exit', (_, signal) => done(signal)),
  )
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(JSON.parse(line))
    if (said.length === killAfter) child.kill('SIGKILL')
  }
  return { said, signal: await ended }
}

/** The database ends what a dead client had sent already. */
const untilQuiet = () =>
  expect
    .poll(
      async () => {
        await sleep(50)
        const { rowCount } = await service.db.query(
          `select from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'`,
        )
        return rowCount
      },
      { timeout: 20_000 },
    )
    .toBe(0)

test('uploads and deletions that are killed between object and transaction orphan nothing and lose nothing', async () => {
  const { db, store } = service
  const projects = [service.project_id, await service.anotherProject()]
  const bodies = ['1', '2', '3'].map((name) => `${name} ${randomBytes(8).toString('hex')}`)
  const alive = new Map<string, string>()
  let [uploads, kills, doubtful] = [0, 0, 0]

  for (let round = 0; uploads < 100; round++) {
    const deletions = [...alive].map(([id, project]) => `${project}/${id}`)
    deletions.sort(() => randomInt(3) - 1)
    const place = PLACES[round % (PLACES.length + 2)]
    const asked = deletions.slice(0, 12)
    const { said, signal } = await runUploads(
      {
        url: service.databaseUrl,
        store: service.place,
        projects,
        bodies,
        uploads: 15,
        deletions: asked,
        ...(place && { dies: { at: place, passage: 1 + randomInt(4) } }),
      },
      place || round % (PLACES.length + 2) === PLACES.length ? 8 + randomInt(8) : undefined,
    )
    if (signal === 'SIGKILL') kills++
    else expect(said.at(-1)).toEqual({ ended: true })
    for (const { uploaded, project, deleted } of said) {
      if (uploaded && project) alive.set(uploaded, project)
      if (uploaded) uploads++
      if (deleted) alive.delete(deleted)
    }
    await untilQuiet()
    // What was under way when it died may be done or not: the rows say which.
    const { rows } = await db.query<{ id: string; project_id: string }>(
      'select id, project_id from files',
    )
    const there = new Map(rows.map(({ id, project_id }) => [id, project_id]))
    for (const id of alive.keys())
      if (!there.has(id)) {
        expect(asked.some((one) => one.endsWith(`/${id}`))).toBe(true)
        alive.delete(id)
        doubtful++
      }
    for (const [id, project] of there) alive.set(id, project)
  }
  expect(kills).toBeGreaterThan(4)
  expect(doubtful).toBeLessThanOrEqual(3 * kills)

  await sweep()
  await store.clearStale(-1)
  const referenced = new Set<string>()
  const { rows } = await db.query<{ id: string; project_id: string; sha256: string }>(
    'select id, project_id, sha256 from files',
  )
  expect(rows.length).toBeGreaterThan(0)
  for (const file of rows) referenced.add(objectKey(file.project_id, file.sha256))
  const owned = await db.query<{ key: string }>(
    `select project_id || '/' || sha256 as key from objects`,
  )
  expect(new Set(owned.rows.map(({ key }) => key))).toEqual(referenced)
  expect(new Set(await service.stored())).toEqual(referenced)
  for (const key of referenced) {
    const bytes = await buffer(await store.get(key))
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(key.split('/')[1])
  }
  for (const { id, project_id } of rows) await service.files.delete(project_id, id)
  expect(await service.stored()).toEqual([])
}, 300_000)

test('what a kill leaves in the caches goes when it is old, and nothing else', async () => {
  const folder = temporaryFolder()
  const old = new Date(Date.now() - 2 * 3_600_000)
  for (const name of ['a.safetensors', 'b.safetensors.1234.tmp', 'c.safetensors.5678.tmp'])
    await writeFile(join(folder, name), 'x')
  await mkdir(join(folder, '.making-x'))
  for (const name of ['a.safetensors', 'b.safetensors.1234.tmp', '.making-x'])
    await utimes(join(folder, name), old, old)
  const removed = await clearLeftovers([folder, join(folder, 'none')], 3_600_000)
  expect(removed.map((path) => path.slice(folder.length + 1)).sort()).toEqual([
    '.making-x',
    'b.safetensors.1234.tmp',
  ])
})
