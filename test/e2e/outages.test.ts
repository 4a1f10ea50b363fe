// The database or the object store goes away in the middle of a job, five times: refused, or silent. The job ends
// right all the same, and requests meanwhile are told when to come back. LUTHIER_TEST_OUTAGE_SECONDS makes it longer.

import { setTimeout as sleep } from 'node:timers/promises'
import { OpenAI } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { onS3 } from '../support/objects.ts'
import { freshDatabase, type TestDatabase } from '../support/postgres.ts'
import { openRelay, type Relay, relayDatabase } from '../support/relay.ts'
import { NO_S3, s3Server } from '../support/s3.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const OUTAGE_MS = 1000 * Number(process.env.LUTHIER_TEST_OUTAGE_SECONDS ?? 6)
/** No request may take longer, whatever has gone. */
const BOUND_MS = 30_000
const ROWS = 24
const BATCH = 2
const N_EPOCHS = 25
const STEPS = (ROWS / BATCH) * N_EPOCHS

describe.skipIf(stories.missing)('a server whose neighbours go away', () => {
  let database: TestDatabase
  let toDatabase: Relay
  let toStore: Relay | undefined
  let server: LuthierServer
  let client: OpenAI
  let undisturbed = ''
  beforeAll(async () => {
    database = await freshDatabase()
    const { relay, url } = await relayDatabase(database.url)
    toDatabase = relay
    const settings: Record<string, string> = { DATABASE_URL: url }
    if (onS3) {
      const endpoint = new URL(s3Server()?.endpoint ?? '')
      toStore = await openRelay(endpoint.hostname, Number(endpoint.port || 80))
      settings.S3_ENDPOINT = `http://127.0.0.1:${toStore.port}`
    }
    server = await startLuthier(makeHome({ stories260k: stories.path }), settings)
    const { baseURL, apiKey } = server
    client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 2 * BOUND_MS })
    undisturbed = await startJob()
    expect((await ended(undisturbed)).status).toBe('succeeded')
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await toStore?.[Symbol.asyncDispose]()
    await toDatabase?.[Symbol.asyncDispose]()
    await database?.[Symbol.asyncDispose]()
  })

  const upload = async () => {
    const rows = Array.from({ length: ROWS }, (_, i) =>
      JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
    ).join('\n')
    const bytes = new TextEncoder().encode(`${rows}\n`)
    const file = await OpenAI.toFile(bytes, 'rows.jsonl')
    return (await client.files.create({ file, purpose: 'fine-tune' })).id
  }

  async function startJob() {
    const job = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: await upload(),
      seed: 5,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs: N_EPOCHS, batch_size: BATCH } },
      },
    })
    return job.id
  }

  async function ended(id: string) {
    for (let waited = 0; waited < 240_000; waited += 200) {
      const job = await client.fineTuning.jobs.retrieve(id)
      if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job
      await sleep(200)
    }
    throw new Error('The job has not ended within four minutes.')
  }

  // Looked at behind the relay, so that the test sees what the server does not.
  const reaches = async (id: string, step: number) => {
    const sql = 'select coalesce(max(step), 0) as step from fine_tuning_steps where job_id = $1'
    while ((await database.db.query(sql, [id])).rows[0].step < step) await sleep(20)
  }

  /** Asks again and again while it is away; every answer must be a 503 with Retry-After, and in time. */
  async function outage(relay: Relay, kind: 'cut' | 'stall', ask: () => Promise<unknown>) {
    const end = Date.now() + OUTAGE_MS
    if (kind === 'cut') await relay.cut()
    else relay.stall()
    let answers = 0
    const asking = (async () => {
      while (Date.now() < end) {
        const began = Date.now()
        const error = await ask().then(
          () => undefined,
          (error: unknown) => error,
        )
        expect(Date.now() - began).toBeLessThan(BOUND_MS)
        // What was asked just before the end may have been answered after it.
        if (error === undefined && Date.now() >= end) break
        expect(error).toBeInstanceOf(OpenAI.InternalServerError)
        const { status, headers } = error as InstanceType<typeof OpenAI.APIError>
        expect([status, Number(headers?.get('retry-after')) > 0]).toEqual([503, true])
        answers++
        await sleep(200)
      }
    })()
    await sleep(end - Date.now())
    await relay.restore()
    await asking
    expect(answers).toBeGreaterThan(0)
  }

  async function survives(relay: Relay, ask: () => Promise<unknown>) {
    const id = await startJob()
    const points = [0, 1, STEPS / 3, (2 * STEPS) / 3, STEPS - 1]
    for (const [i, step] of points.entries()) {
      await reaches(id, step)
      await outage(relay, i % 2 === 0 ? 'cut' : 'stall', ask)
    }
    const job = await ended(id)
    expect([job.status, job.error]).toEqual(['succeeded', null])

    const before = await client.fineTuning.jobs.retrieve(undisturbed)
    expect(job.trained_tokens).toBe(before.trained_tokens)
    const csv = async (file: string | undefined) => (await client.files.content(file ?? '')).text()
    expect(await csv(job.result_files[0])).toBe(await csv(before.result_files[0]))
    const { rows } = await database.db.query(
      'select distinct adapter_sha256 from models where job_id = any ($1)',
      [[undisturbed, id]],
    )
    expect(rows).toHaveLength(1)

    const { data } = await client.fineTuning.jobs.listEvents(id, { limit: 1000 })
    const messages = data.map(({ message }) => message)
    expect(new Set(messages).size).toBe(messages.length)
    expect(data.filter(({ type }) => type === 'metrics')).toHaveLength(Math.min(STEPS, 200))
    const sql = 'select count(*)::int as n from fine_tuning_jobs'
    return (await database.db.query(sql)).rows[0].n as number
  }

  test('a job survives five outages of the database', async () => {
    expect(await survives(toDatabase, () => client.models.list())).toBe(2)
    const answer = await client.completions.create({ model: 'stories260k', prompt: 'Once' })
    expect(answer.choices).toHaveLength(1)
  })

  test.skipIf(!onS3)(`a job survives five outages of the object store (${NO_S3})`, async () => {
    await survives(toStore!, upload)
  })
})
