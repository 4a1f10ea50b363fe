import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { startServer } from '../../src/server.ts'
import { isRunning } from '../../src/service/db/postmaster.ts'
import { testLog } from '../support/log.ts'
import { emptyDatabase, type TestDatabase } from '../support/postgres.ts'
import { bearer } from '../support/service.ts'

let home: string
let database: TestDatabase
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'luthier-server-'))
  database = await emptyDatabase()
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
  await rm(home, { recursive: true, force: true })
})

const start = (env: Record<string, string> = {}) =>
  startServer(
    readConfig({ LUTHIER_HOME: home, PORT: '0', DATABASE_URL: database.url, ...env }),
    testLog,
  )
const listFiles = (url: string, key: string) =>
  fetch(`${url}/v1/files`, { headers: bearer(key) }).then((reply) => reply.status)

test('the first start makes a key, keeps it where only its owner reads it, and later ones use it', async () => {
  const first = await start()
  expect(first.apiKey).toMatch(/^sk-luthier-\w{40}$/)
  expect(first.newKeyPath).toBe(join(home, 'api-key'))
  expect((await stat(join(home, 'api-key'))).mode & 0o777).toBe(0o600)
  expect(await listFiles(first.url, first.apiKey)).toBe(200)
  await first.close()

  const second = await start()
  expect([second.apiKey, second.newKeyPath]).toEqual([first.apiKey, undefined])
  expect(await listFiles(second.url, second.apiKey)).toBe(200)
  await second.close()
})

test('a key from the settings is the key', async () => {
  await using server = await start({ LUTHIER_API_KEY: 'sk-from-the-settings' })
  expect(server.newKeyPath).toBeUndefined()
  expect(await listFiles(server.url, 'sk-from-the-settings')).toBe(200)
})

test('processes that start at once on one database all become ready', async () => {
  const empty = await emptyDatabase()
  const servers = await Promise.all([1, 2, 3].map(() => start({ DATABASE_URL: empty.url })))
  for (const server of servers) expect((await fetch(`${server.url}/readyz`)).status).toBe(200)
  await Promise.all(servers.map((server) => server.close()))
  await empty[Symbol.asyncDispose]()
})

test('without a database it is alive but not ready', async () => {
  const lost = await emptyDatabase()
  await using server = await start({ DATABASE_URL: lost.url })
  await lost[Symbol.asyncDispose]()
  const reply = await fetch(`${server.url}/readyz`)
  expect([reply.status, reply.headers.get('retry-after')]).toEqual([503, '1'])
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
})

test('a start that fails stops what it had started, the embedded Postgres too', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => taken.once('listening', resolve))
  const { port } = taken.address() as AddressInfo
  const own = join(home, 'own')
  const config = readConfig({ LUTHIER_HOME: own, PORT: String(port) })
  await expect(startServer(config, testLog)).rejects.toThrow('EADDRINUSE')
  taken.close()
  expect(await readdir(join(own, 'postgres', 'users'))).toEqual([])
  const lock = await readFile(join(own, 'postgres', 'data', 'postmaster.pid'), 'utf8').catch(
    () => '',
  )
  expect(lock).toBe('')
})

test('on embedded parts alone: what was uploaded is there after the next start, and nothing runs on', async () => {
  const own = join(home, 'embedded')
  const config = readConfig({ LUTHIER_HOME: own, PORT: '0' })
  const first = await startServer(config, testLog)
  const form = new FormData()
  form.append('file', new Blob(['{"prompt":"a","completion":"b"}\n']), 'a.jsonl')
  form.append('purpose', 'fine-tune')
  const headers = bearer(first.apiKey)
  const made = await fetch(`${first.url}/v1/files`, { method: 'POST', headers, body: form })
  const { id } = (await made.json()) as { id: string }
  const lock = await readFile(join(own, 'postgres', 'data', 'postmaster.pid'), 'utf8')
  await first.close()
  expect(await isRunning(Number.parseInt(lock, 10))).toBe(false)

  await using second = await startServer(config, testLog)
  const content = await fetch(`${second.url}/v1/files/${id}/content`, { headers })
  expect(await content.text()).toBe('{"prompt":"a","completion":"b"}\n')
})

test('the server of the tests is a Postgres 15 or later', async () => {
  expect(inject('postgresUrl')).toMatch(/^postgres/)
  const { rows } = await database.db.query('show server_version_num')
  expect(Number(rows[0].server_version_num)).toBeGreaterThanOrEqual(150_000)
})
