// kill -9 at random moments: the job goes on afterwards as if nothing had been.

import { setTimeout as sleep } from 'node:timers/promises'
import { OpenAI } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const KILLS = 10
const N_EPOCHS = 50
const BATCH = 2
const ROWS = 48
const STEPS = (ROWS / BATCH) * N_EPOCHS

describe.skipIf(stories.missing)('a server that is killed', () => {
  let server: LuthierServer
  let client: OpenAI
  beforeAll(async () => {
    server = await startLuthier(makeHome({ stories260k: stories.path }))
    client = new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 10 })
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const rows = Array.from({ length: ROWS }, (_, i) =>
    JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
  ).join('\n')

  async function startJob(n_epochs = N_EPOCHS) {
    const bytes = new TextEncoder().encode(`${rows}\n`)
    const file = await client.files.create({
      file: await OpenAI.toFile(bytes, 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const job = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: file.id,
      seed: 3,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs, batch_size: BATCH } },
      },
    })
    return job.id
  }

  async function ended(id: string) {
    for (let waited = 0; waited < 180_000; waited += 200) {
      const job = await client.fineTuning.jobs.retrieve(id)
      if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job
      await sleep(200)
    }
    throw new Error('The job has not ended within three minutes.')
  }

  test('ten times during a job ends with the bytes of an undisturbed one, and leaves no rest', async () => {
    const before = await server.stored()
    const undisturbed = await ended(await startJob())
    expect(undisturbed.status).toBe('succeeded')
    const kept = (await server.stored()).filter((name) => !before.includes(name))

    const id = await startJob()
    let largest = 0
    let atWork = 0
    for (let i = 0; i < KILLS; i++) {
      // From the very start of a process to well into its training.
      await sleep(Math.random() * 2000)
      const { status } = await client.fineTuning.jobs.retrieve(id)
      if (['validating_files', 'queued', 'running'].includes(status)) atWork++
      await server.kill()
      largest = Math.max(largest, (await server.stored()).length)
      await server.start()
    }
    // Kills of a server that has nothing to do any more would show nothing.
    expect(atWork).toBe(KILLS)
    const job = await ended(id)
    expect([job.status, job.error]).toEqual(['succeeded', null])
    expect(job.trained_tokens).toBe(undisturbed.trained_tokens)

    const steps: number[] = []
    const messages: string[] = []
    for await (const event of client.fineTuning.jobs.listEvents(id, { limit: 50 })) {
      messages.unshift(event.message)
      if (event.type === 'metrics') steps.unshift((event.data as { step: number }).step)
    }
    expect(new Set(messages).size).toBe(messages.length)
    expect(steps).toEqual([...steps].sort((a, b) => a - b))
    expect(new Set(steps).size).toBe(200)
    expect(steps.at(-1)).toBe(STEPS)

    const csvOf = async (file: string | undefined) =>
      (await client.files.content(file ?? '')).text()
    const csv = await csvOf(job.result_files[0])
    expect(csv.trimEnd().split('\n')).toHaveLength(STEPS + 1)
    expect(csv).toBe(await csvOf(undisturbed.result_files[0]))

    // Objects are named by their bytes: the same adapters, the same result file, so nothing new at all.
    const after = (await server.stored()).filter((name) => !before.includes(name))
    expect(after.sort()).toEqual(kept.sort())
    expect(largest).toBeLessThan(before.length + kept.length + 12)

    const name = job.fine_tuned_model ?? ''
    const answer = await client.completions.create({
      model: name,
      prompt: 'Cat 1 said',
      max_tokens: 8,
      temperature: 0,
    })
    expect(answer.choices[0]?.text).toMatch(/\S/)
  })

  test('with SIGTERM gives its job back, and the next start goes on at once', async () => {
    const id = await startJob(10)
    const metrics = async () => {
      const page = await client.fineTuning.jobs.listEvents(id, { limit: 1 })
      return page.data[0]?.type === 'metrics'
    }
    while (!(await metrics())) await sleep(50)
    expect(await server.stop()).toBe(0)
    await server.start()
    const job = await ended(id)
    expect(job.status).toBe('succeeded')
  })
})
