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

  async function upload(text: string) {
    const bytes = new TextEncoder().encode(`${text}\n`)
    const file = await client.files.create({
      file: await OpenAI.toFile(bytes, 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    return file.id
  }

  async function startJob(n_epochs = N_EPOCHS, early: object = {}, validation?: string) {
    const job = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: await upload(rows),
      ...(validation !== undefined && { validation_file: await upload(validation) }),
      seed: 3,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs, batch_size: BATCH, ...early } },
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
    const added = async () =>
      (await server.stored()).filter((name) => !before.includes(name)).sort()
    const undisturbed = await ended(await startJob())
    expect(undisturbed.status).toBe('succeeded')
    // What is superseded goes soon after the end.
    let kept = await added()
    for (let last: string[] = []; `${kept}` !== `${last}`; ) {
      last = kept
      await sleep(1000)
      kept = await added()
    }

    const id = await startJob()
    const reached = async () => {
      const [last] = (await client.fineTuning.jobs.listEvents(id, { limit: 1 })).data
      return last?.type === 'metrics' ? (last.data as { step: number }).step : 0
    }
    let largest = 0
    let atWork = 0
    for (let i = 0; i < KILLS; i++) {
      // From the very start of a process to well into its training, but never so late that the job could end before
      // the last kill.
      const until = Date.now() + Math.random() * 2000
      const latest = ((i + 1) * STEPS) / (KILLS + 2)
      while (Date.now() < until && (await reached()) < latest) await sleep(20)
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
    await expect.poll(added, { timeout: 20_000 }).toEqual(kept)
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

  test('while a job waits for its loss to fall ends at the same step, with the same best checkpoint', async () => {
    // Other numbers than the training rows have: their loss rises once those are known by heart.
    const validation = Array.from({ length: 12 }, (_, i) =>
      JSON.stringify({ prompt: `Cat ${i * 5} said`, completion: ` hello ${i * 13 + 5}.` }),
    ).join('\n')
    const start = () =>
      startJob(N_EPOCHS, { learning_rate: 0.01, early_stopping: { patience: 6 } }, validation)
    const before = await server.stored()
    const undisturbed = await ended(await start())
    expect(undisturbed.status).toBe('succeeded')
    const kept = (await server.stored()).filter((name) => !before.includes(name))

    const id = await start()
    let atWork = 0
    for (let i = 0; i < 4; i++) {
      const first = await client.fineTuning.jobs.listEvents(id, { limit: 1 })
      // A kill falls into training, between a commit and the next.
      for (let waited = 0; waited < 60_000; waited += 50) {
        const [last] = (await client.fineTuning.jobs.listEvents(id, { limit: 1 })).data
        if (last?.type === 'metrics' && last.id !== first.data[0]?.id) break
        if ((await client.fineTuning.jobs.retrieve(id)).finished_at) break
        await sleep(50)
      }
      await sleep(Math.random() * 300)
      if ((await client.fineTuning.jobs.retrieve(id)).status === 'running') atWork++
      await server.kill()
      await server.start()
    }
    expect(atWork).toBeGreaterThanOrEqual(2)
    const job = await ended(id)
    expect([job.status, job.error]).toEqual(['succeeded', null])
    const csvOf = async (file: string | undefined) =>
      (await client.files.content(file ?? '')).text()
    const csv = await csvOf(job.result_files[0])
    expect(csv).toBe(await csvOf(undisturbed.result_files[0]))
    // It did stop before its last epoch, some epochs behind its best one.
    const steps = csv.trimEnd().split('\n').length - 1
    expect(steps).toBeLessThan(STEPS)
    const told = async ({
      id,
      fine_tuned_model,
    }: {
      id: string
      fine_tuned_model: string | null
    }) =>
      (await client.fineTuning.jobs.checkpoints.list(id)).data.map(
        ({ step_number, metrics, fine_tuned_model_checkpoint: name }) => ({
          step_number,
          metrics,
          isPublished: name === fine_tuned_model,
        }),
      )
    const checkpoints = await told(job)
    expect(checkpoints).toEqual(await told(undisturbed))
    const best = checkpoints.find(({ isPublished }) => isPublished)
    expect(best?.step_number).toBe(steps - 6 * (ROWS / BATCH))
    // Objects are named by their bytes: nothing new was stored, but what is on its way out.
    await expect
      .poll(async () => (await server.stored()).filter((name) => !before.includes(name)), {
        timeout: 20_000,
      })
      .toSatisfy(
        (after: string[]) => after.length > 0 && after.every((name) => kept.includes(name)),
      )
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
