// A used server on embedded parts, backed up while it runs; the backup restored into an empty database of the
// Postgres of these tests (Debian's, where TEST_DATABASE_URL names it), and a server on that.

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { luthier } from '../support/command.ts'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { emptyDatabase, type TestDatabase } from '../support/postgres.ts'
import { shared } from '../support/shared.ts'
import { suiteFolder } from '../support/temporary.ts'

const stories = shared('models/stories260k')
const folder = suiteFolder()

let used: LuthierServer
let database: TestDatabase
let emptyHome = ''
beforeAll(async () => {
  if (stories.missing) return
  used = await startLuthier(makeHome({ stories260k: stories.path }), { DATABASE_URL: '' })
  database = await emptyDatabase()
  emptyHome = makeHome({ stories260k: stories.path })
})
afterAll(async () => {
  await used?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  if (emptyHome) rmSync(emptyHome, { recursive: true, force: true })
})

const clientOf = (server: LuthierServer) =>
  new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 })

const all = async <T>(pages: AsyncIterable<T>): Promise<T[]> => {
  const found: T[] = []
  for await (const one of pages) found.push(one)
  return found
}

/** All that a client can see. */
const everything = async (client: OpenAI) => {
  const files = await all(client.files.list())
  const contents = await Promise.all(
    files.map(async ({ id }) => (await client.files.content(id)).text()),
  )
  const jobs = await all(client.fineTuning.jobs.list())
  const events = await Promise.all(jobs.map(({ id }) => all(client.fineTuning.jobs.listEvents(id))))
  const checkpoints = await Promise.all(
    jobs.map(({ id }) => all(client.fineTuning.jobs.checkpoints.list(id))),
  )
  const models = await all(client.models.list())
  const tuned = jobs.find((job) => job.fine_tuned_model)?.fine_tuned_model ?? ''
  const answer = await client.completions.create({
    model: tuned,
    prompt: 'Once upon a time',
    max_tokens: 40,
    temperature: 0,
  })
  return {
    files,
    contents,
    jobs,
    events,
    checkpoints,
    models: models.filter(({ id }) => id.startsWith('ft:')),
    answer: answer.choices[0]?.text,
  }
}

test.skipIf(stories.missing)(
  'files, jobs, events, models and the tuned greedy answer are those of the server that was backed up',
  async () => {
    const client = clientOf(used)
    const row = { prompt: 'Once upon a time', completion: ' there was a red fox named Tim.' }
    const upload = await client.files.create({
      file: await toFile(Buffer.from(`${JSON.stringify(row)}\n`.repeat(20)), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const { id } = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: upload.id,
      suffix: 'kept',
      method: {
        type: 'supervised',
        supervised: {
          hyperparameters: { n_epochs: 3, batch_size: 5, learning_rate_multiplier: 20 },
        },
      },
    })
    await expect
      .poll(async () => (await client.fineTuning.jobs.retrieve(id)).status, {
        timeout: 120_000,
        interval: 300,
      })
      .toBe('succeeded')
    const before = await everything(client)
    expect(before.answer).not.toBe('')
    expect(before.models).toHaveLength(1)

    const file = join(folder, 'luthier.backup')
    const backup = await luthier(used.settings, 'backup', file)
    expect(backup).toMatchObject({ code: 0, stderr: '' })
    expect(backup.stdout).toMatch(/: \d+ rows, \d+ objects, /)
    // Restored into a folder, wherever the objects were.
    const folders = { S3_BUCKET: '', S3_ENDPOINT: '', S3_REGION: '', S3_FORCE_PATH_STYLE: '' }
    const target = { LUTHIER_HOME: emptyHome, DATABASE_URL: database.url, ...folders }
    expect(await luthier(target, 'restore', file)).toMatchObject({ code: 0, stderr: '' })

    const server = await startLuthier(emptyHome, target)
    try {
      expect(await everything(clientOf(server))).toEqual(before)
    } finally {
      await server.stop()
    }
    const again = await luthier(target, 'restore', file)
    expect(again).toMatchObject({ code: 1, stdout: '' })
    expect(again.stderr).toMatch(/^luthier: The database is not empty: .*\n$/)
  },
)
