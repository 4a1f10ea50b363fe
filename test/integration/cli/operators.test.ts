// keys and projects from the command line, on the embedded database of a server that runs.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI, { toFile } from 'openai'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import { type RunningServer, startServer } from '../../../src/server.ts'
import { openDatabase } from '../../../src/service/db/database.ts'
import { luthier } from '../../support/command.ts'
import { testLog } from '../../support/log.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

let home: string
let server: RunningServer
const logged: string[] = []
const log = pino({ level: 'warn' }, { write: (line: string) => void logged.push(line) })
beforeAll(async () => {
  // A short path: the database's socket lies under it.
  home = mkdtempSync(join(tmpdir(), 'luthier-ops-'))
  await writeTinyModel(join(home, 'models', 'tiny'))
  const LUTHIER_MODEL_ALIASES = 'gpt-4o-mini=gone,gpt-4o=tiny'
  server = await startServer(
    readConfig({ PORT: '0', LUTHIER_HOME: home, LUTHIER_MODEL_ALIASES }),
    log,
  )
})
afterAll(async () => {
  await server.close()
  rmSync(home, { recursive: true, force: true })
})

test('an alias whose model is not installed is said at start', () => {
  const warnings = logged.map((line) => JSON.parse(line)).filter(({ alias }) => alias)
  expect(warnings).toMatchObject([
    { alias: 'gpt-4o-mini', target: 'gone', msg: expect.stringContaining('not installed') },
  ])
})

const run = (...args: string[]) => luthier({ LUTHIER_HOME: home, DATABASE_URL: '' }, ...args)

const files = async (key: string, headers: Record<string, string> = {}) => {
  const reply = await fetch(`${server.url}/v1/files`, {
    headers: { authorization: `Bearer ${key}`, ...headers },
  })
  return { status: reply.status, body: (await reply.json()) as { error?: { code: string } } }
}

test('a key is made, shown once, used, listed and revoked while the server runs', async () => {
  const made = await run('keys', 'create', 'laptop', '--scope', 'read')
  expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/^sk-luthier-\w{40}\n$/) })
  const key = made.stdout.trim()
  const id = /key_\w+/.exec(made.stderr)![0]
  expect((await files(key)).status).toBe(200)

  const listed = await run('keys', 'list')
  const row = listed.stdout.split('\n').find((line) => line.startsWith(id))
  expect(row).toMatch(/ read .* - +laptop$/)
  expect(listed.stdout).not.toContain(key)

  expect(await run('keys', 'revoke', id)).toMatchObject({
    code: 0,
    stdout: `${id} (laptop) is revoked.\n`,
  })
  expect(await files(key)).toMatchObject({
    status: 401,
    body: { error: { code: 'invalid_api_key' } },
  })
  expect(await run('keys', 'revoke', id)).toEqual({
    code: 1,
    stdout: '',
    stderr: `luthier: The key ${id} was revoked before.\n`,
  })
})

test('a project has keys of its own, and refuses every request once it is archived', async () => {
  const project = (await run('projects', 'create', 'support')).stdout.trim()
  expect(project).toMatch(/^proj_\w{24}$/)
  const key = (await run('keys', 'create', 'bot', '--project', 'support')).stdout.trim()
  expect((await files(key, { 'openai-project': project })).status).toBe(200)
  expect(await files(server.apiKey, { 'openai-project': project })).toMatchObject({
    status: 401,
    body: { error: { code: 'mismatched_project' } },
  })

  expect((await run('projects', 'archive', 'support')).stdout).toBe(`${project} is archived.\n`)
  expect(await files(key)).toMatchObject({
    status: 401,
    body: { error: { code: 'not_authorized_invalid_project' } },
  })
  const listed = (await run('projects', 'list')).stdout.split('\n')
  expect(listed.find((line) => line.startsWith(project))).toMatch(/Z +\d{4}-.*Z +support$/)
  const gone = await run('keys', 'create', 'late', '--project', 'support')
  expect(gone).toMatchObject({ code: 1, stderr: 'luthier: There is no project support.\n' })
})

test('archiving a project cancels what it has in line and in work, and says so', async () => {
  const project = (await run('projects', 'create', 'busy')).stdout.trim()
  const key = (await run('keys', 'create', 'bot', '--project', 'busy')).stdout.trim()
  const client = new OpenAI({ apiKey: key, baseURL: `${server.url}/v1`, maxRetries: 0 })
  const rows = Array.from({ length: 200 }, (_, i) => `{"prompt":"Cat ${i}","completion":" ${i}"}\n`)
  const file = await toFile(Buffer.from(rows.join('')), 'train.jsonl')
  const training_file = (await client.files.create({ file, purpose: 'fine-tune' })).id
  const create = () =>
    client.fineTuning.jobs.create({
      model: 'tiny',
      training_file,
      hyperparameters: { n_epochs: 50, batch_size: 1 },
    })
  const jobs = [await create(), await create()]
  await expect
    .poll(async () => (await client.fineTuning.jobs.retrieve(jobs[0]!.id)).status, {
      timeout: 60_000,
    })
    .toBe('running')
  expect(await run('projects', 'archive', 'busy')).toMatchObject({
    code: 0,
    stdout: `${jobs.map(({ id }) => `${id} is cancelled.\n`).join('')}${project} is archived.\n`,
  })
  await using database = await openDatabase(readConfig({ LUTHIER_HOME: home }), testLog)
  const sql = `select status, state, lease_owner from fine_tuning_jobs join work using (id)
                where fine_tuning_jobs.project_id = $1`
  const cancelled = { status: 'cancelled', state: 'ended', lease_owner: null }
  expect((await database.db.query(sql, [project])).rows).toEqual([cancelled, cancelled])
}, 120_000)

test('the default project stays, and an unknown name is one sentence', async () => {
  const refused = await run('projects', 'archive', 'Default project')
  expect(refused.stderr).toBe('luthier: The default project cannot be archived.\n')
  const unknown = await run('keys', 'create', 'x', '--scope', 'owner')
  expect(unknown.code).toBe(1)
  expect(unknown.stderr).toContain('Allowed choices are read, member, admin.')
})
