// One device, two uses: answers come while a job trains, the job is none the worse for it, and a cancel ends it within a step.

import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type OpenAI from 'openai'
import { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'
import { suiteFolder } from '../../support/temporary.ts'

const stories = shared('models/stories260k')
const folder = suiteFolder()

describe.skipIf(stories.missing)('while a job trains', () => {
  let server: InferenceServer
  let client: OpenAI
  beforeAll(async () => {
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  async function upload(): Promise<string> {
    const rows = Array.from({ length: 40 }, (_, i) =>
      JSON.stringify({
        prompt: `Once upon a time ${i}`,
        completion: ' Tom had a red car. '.repeat(5),
      }),
    )
    const { id } = await client.files.create({
      file: await toFile(Buffer.from(rows.join('\n')), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    return id
  }

  async function startJob() {
    const { id } = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: await upload(),
      seed: 3,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs: 50, batch_size: 8 } },
      },
    })
    while ((await steps(id)) === 0) await sleep(100)
    return id
  }

  /** The last step that the job has told of. */
  async function steps(id: string): Promise<number> {
    const { data } = await client.fineTuning.jobs.listEvents(id, { limit: 1 })
    const told = data[0]?.data as { step?: number } | undefined
    return data[0]?.type === 'metrics' ? (told?.step ?? 0) : 0
  }

  test('answers come, equal to those of a quiet server, and the job goes on', async () => {
    const ask = () =>
      client.completions.create({
        model: 'stories260k',
        prompt: 'Once upon a time',
        max_tokens: 60,
        temperature: 0,
      })
    const quiet = await ask()
    const id = await startJob()
    const before = await steps(id)
    for (let i = 0; i < 5; i++) expect((await ask()).choices).toEqual(quiet.choices)
    expect((await client.fineTuning.jobs.retrieve(id)).status).toBe('running')
    while ((await steps(id)) <= before + 1) await sleep(100)
    // The newest checkpoint answers before the job has ended.
    let made = (await client.fineTuning.jobs.checkpoints.list(id)).data
    for (; made.length === 0; made = (await client.fineTuning.jobs.checkpoints.list(id)).data)
      await sleep(100)
    const [tuned] = made[0]!.fine_tuned_model_checkpoint.split(':ckpt-step-')
    for (const model of [`${tuned}:live`, made[0]!.fine_tuned_model_checkpoint])
      expect(
        (await client.completions.create({ model, prompt: 'Once', max_tokens: 4 })).model,
      ).toBe(model)
    expect((await client.fineTuning.jobs.retrieve(id)).status).toBe('running')
    await client.fineTuning.jobs.cancel(id)
  })

  test('the losses of a job are to the last bit those of the same job undisturbed', async () => {
    const training_file = await upload()
    const hyperparameters = { n_epochs: 3, batch_size: 8 }
    const method = { type: 'supervised', supervised: { hyperparameters } } as const
    /** Loss by step; the job is disturbed as often as `disturb` returns. */
    async function losses(disturb: () => Promise<unknown>) {
      const body = { model: 'stories260k', training_file, seed: 3, method }
      const { id } = await client.fineTuning.jobs.create(body)
      while ((await client.fineTuning.jobs.retrieve(id)).finished_at === null) await disturb()
      const { data } = await client.fineTuning.jobs.listEvents(id, { limit: 100 })
      const told = data.filter(({ type }) => type === 'metrics').map(({ data }) => data)
      return (told as { step: number; train_loss: number }[]).map(({ step, train_loss }) => [
        step,
        train_loss,
      ])
    }
    const quiet = await losses(() => sleep(100))
    expect(quiet.length).toBeGreaterThanOrEqual(15)
    const asked = { model: 'stories260k', prompt: 'One day', n: 4, max_tokens: 20 }
    expect(await losses(() => client.completions.create(asked))).toEqual(quiet)
  })

  test('a cancel answers at once, and no step comes after the one under way', async () => {
    const id = await startJob()
    const { status } = await client.fineTuning.jobs.cancel(id)
    expect(status).toBe('cancelled')
    const count = async () =>
      (await client.fineTuning.jobs.listEvents(id, { limit: 100 })).data.filter(
        (e) => e.type === 'metrics',
      ).length
    const told = await count()
    await sleep(1500)
    expect((await count()) - told).toBeLessThanOrEqual(1)
    await expect(client.fineTuning.jobs.cancel(id)).rejects.toMatchObject({ status: 400 })
  })

  test('micro-batches are as large as others can wait for by forecast, and the plan tells it', async () => {
    const training_file = await upload()
    const hyperparameters = { n_epochs: 1, batch_size: 40 }
    const method = { type: 'supervised', supervised: { hyperparameters } } as const
    const body = { model: 'stories260k', training_file, method }

    /** What the plan of a job says of its micro-batches. */
    async function microBatches() {
      const { id } = await client.fineTuning.jobs.create(body)
      while ((await client.fineTuning.jobs.retrieve(id)).finished_at === null) await sleep(100)
      const { data } = await client.fineTuning.jobs.listEvents(id, { limit: 100 })
      const plan = data.map((e) => e.data as { kind?: string; reasons?: string[] } | undefined)
      const reasons = plan.find((data) => data?.kind === 'plan')?.reasons?.join('\n')
      const told = /^micro-batches of (\d+) tokens: about (\d+) ms each/m.exec(reasons ?? '')
      return { tokens: Number(told?.[1]), ms: Number(told?.[2]) }
    }

    // How fast the base is here is measured, and not by jobs of other tests.
    const weights = join(folder, 'cache', 'weights')
    const speeds = async () =>
      (await readdir(weights))
        .filter((name) => name.endsWith('.throughput.json'))
        .map((name) => join(weights, name))
    for (const name of await speeds()) await rm(name)
    await client.post('/fine_tuning/alpha/preflight', { body })
    const quick = await microBatches()
    expect(quick.tokens).toBeGreaterThan(0)
    expect(quick.ms).toBeLessThanOrEqual(300)

    // The same on a machine that is known to be so much slower that as many tokens are too many, and the fewest are not:
    // starting a run costs about a third of it.
    const slower = 1.5 * (300 / Math.max(quick.ms, 1))
    const files = await speeds()
    expect(files).not.toEqual([])
    for (const name of files) {
      const known = JSON.parse(await readFile(name, 'utf8'))
      const kept = { seconds: known.seconds * slower, paced: known.paced * slower }
      await writeFile(name, JSON.stringify(kept))
    }
    const slow = await microBatches()
    expect(slow.tokens).toBeLessThan(quick.tokens)
    expect(slow.ms).toBeLessThanOrEqual(300)
  })
})
