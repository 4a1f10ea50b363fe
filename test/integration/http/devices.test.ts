// What a server does with several devices: jobs at once, or one job over all of them.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import type { Plan } from '../../../src/engine/train/request.ts'
import { type RunningServer, startServer } from '../../../src/server.ts'
import { testLog } from '../../support/log.ts'
import { freshDatabase, type TestDatabase } from '../../support/postgres.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

describe('a server with two devices of one thread', () => {
  let folder: string
  let database: TestDatabase
  let server: RunningServer
  let client: OpenAI
  let training_file: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-devices-'))
    await writeTinyModel(join(folder, 'models', 'tiny'))
    database = await freshDatabase()
    const settings = { PORT: '0', LUTHIER_HOME: folder, DATABASE_URL: database.url }
    const devices = { LUTHIER_DEVICE: 'cpu,cpu', LUTHIER_THREADS: '1' }
    server = await startServer(readConfig({ ...settings, ...devices }), testLog)
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.apiKey, maxRetries: 0 })
    const rows = Array.from({ length: 24 }, (_, i) =>
      JSON.stringify({ prompt: `${i} is `, completion: (i % 2 ? ' odd' : 'even').repeat(20) }),
    )
    const file = await toFile(Buffer.from(rows.join('\n')), 'rows.jsonl')
    training_file = (await client.files.create({ file, purpose: 'fine-tune' })).id
  })
  afterAll(async () => {
    await server?.close()
    await database?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const create = (hyperparameters: object) =>
    client.fineTuning.jobs.create({
      model: 'tiny',
      training_file,
      seed: 5,
      method: { type: 'supervised', supervised: { hyperparameters } },
    } as OpenAI.FineTuning.JobCreateParams)

  async function ended(id: string) {
    for (let waited = 0; waited < 60_000; waited += 50) {
      const job = await client.fineTuning.jobs.retrieve(id)
      if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job
      await sleep(50)
    }
    throw new Error(`${id} has not ended within a minute.`)
  }

  /** The columns of step and loss, as they are kept. */
  async function resultOf(id: string): Promise<string> {
    const { result_files } = await ended(id)
    return (await client.files.content(result_files[0]!)).text()
  }

  async function planOf(id: string) {
    const sql = 'select plan from fine_tuning_jobs where id = $1'
    return (await database.db.query<{ plan: Plan }>(sql, [id])).rows[0]!.plan
  }

  const status = async (id: string) => (await client.fineTuning.jobs.retrieve(id)).status

  test('one job over both is the job on one, to the last digit', async () => {
    const hyperparameters = { n_epochs: 2, batch_size: 8, learning_rate: 0.01 }
    const together = await create({ ...hyperparameters, data_parallel: 2 })
    const result = await resultOf(together.id)
    expect(result.trim().split('\n')).toHaveLength(1 + 6)
    const alone = await create(hyperparameters)
    expect(await resultOf(alone.id)).toBe(result)

    const plan = await planOf(together.id)
    // Each device holds a micro-batch of its own.
    const single = await planOf(alone.id)
    const { memory_bytes = 0, reasons } = plan
    expect(memory_bytes).toBeGreaterThan(single.memory_bytes!)
    // What the second may be told besides is the speed that was known by then.
    expect(single.reasons).toEqual(expect.arrayContaining(reasons))
    expect(plan).toEqual({ ...single, devices: 2, memory_bytes, reasons })
    // Two rows of two examples each: a batch of eight is two micro-batches, one for each device.
    expect(plan).toMatchObject({ device: 'cpu', threads: 1, rows: 2, row_length: 192 })
  })

  test('two jobs train at the same time, and one that asks for both devices waits for them', async () => {
    const long = { n_epochs: 40, batch_size: 1 }
    const jobs = [await create(long), await create(long)]
    const over = await create({ n_epochs: 1, data_parallel: 2 })
    for (let waited = 0; ; waited += 50) {
      const now = await Promise.all(jobs.map(({ id }) => status(id)))
      if (now.every((s) => s === 'running')) break
      expect(waited, `${now}`).toBeLessThan(30_000)
      await sleep(50)
    }
    expect(await status(over.id)).toBe('validating_files')
    for (const { id } of jobs) await client.fineTuning.jobs.cancel(id)
    expect((await ended(over.id)).status).toBe('succeeded')
  })

  test('a job for more devices than there are is left to other workers, and holds up none', async () => {
    const large = await create({ n_epochs: 1, data_parallel: 3 })
    const small = await create({ n_epochs: 1 })
    expect((await ended(small.id)).status).toBe('succeeded')
    expect(await status(large.id)).toBe('validating_files')
    await client.fineTuning.jobs.cancel(large.id)
  })
})
