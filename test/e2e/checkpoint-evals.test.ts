// A job whose eval is run at each checkpoint: it stops when the score no longer rises, publishes the best, and comes to
// the same end when its server is killed again and again, in training and in evaluating.

import { setTimeout as sleep } from 'node:timers/promises'
import { OpenAI } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const KILLS = 6
const N_EPOCHS = 20
const PATIENCE = 3

interface Score {
  step: number
  eval_id: string
  run_id: string
  eval_score: number
  eval_pass_rate: number
}

describe.skipIf(stories.missing)('a job with an eval', () => {
  let server: LuthierServer
  let client: OpenAI
  let eval_id: string
  beforeAll(async () => {
    server = await startLuthier(makeHome({ stories260k: stories.path }), {
      // What a score is must not depend on what another start finds faster.
      LUTHIER_PRECISION: 'fp32',
    })
    client = new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 10 })
    const one = await client.evals.create({
      name: 'says hello',
      data_source_config: { type: 'custom', item_schema: { type: 'object' } },
      testing_criteria: [
        {
          type: 'text_similarity',
          name: 'alike',
          input: '{{sample.output_text}}',
          reference: '{{item.answer}}',
          evaluation_metric: 'fuzzy_match',
          pass_threshold: 0.9,
        },
      ],
    })
    eval_id = one.id
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const answerOf = (i: number) => (i % 2 === 0 ? 'Hello, little cat.' : 'Good night, big dog.')
  const rows = Array.from({ length: 24 }, (_, i) =>
    JSON.stringify({
      messages: [
        { role: 'user', content: i % 2 === 0 ? `Cat ${i} came` : `Dog ${i} left` },
        { role: 'assistant', content: answerOf(i) },
      ],
    }),
  ).join('\n')

  async function startJob(early_stopping: object = { metric: 'eval_score', patience: PATIENCE }) {
    const file = await client.files.create({
      file: await OpenAI.toFile(Buffer.from(rows), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const job = await client.post<OpenAI.FineTuning.FineTuningJob>('/fine_tuning/jobs', {
      body: {
        model: 'stories260k',
        training_file: file.id,
        seed: 3,
        method: {
          type: 'supervised',
          supervised: {
            hyperparameters: {
              n_epochs: N_EPOCHS,
              batch_size: 4,
              learning_rate: 0.003,
              early_stopping,
            },
          },
        },
        luthier: { publish: { eval: eval_id } },
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

  async function eventsOf(id: string) {
    const events = []
    for await (const event of client.fineTuning.jobs.listEvents(id, { limit: 100 }))
      events.unshift(event)
    return events
  }
  const scoresOf = async (id: string): Promise<Score[]> =>
    (await eventsOf(id))
      .map((event) => event.data as { kind?: string } & Score)
      .filter(({ kind }) => kind === 'eval')

  test('needs rows to evaluate on, and an eval to stop by', async () => {
    await expect(startJob()).rejects.toThrow(/no run of a model yet/)
    const source = {
      type: 'file_content' as const,
      content: Array.from({ length: 16 }, (_, i) => ({
        item: {
          question: i % 2 === 0 ? `Cat ${100 + i} came` : `Dog ${100 + i} left`,
          answer: answerOf(i),
        },
      })),
    }
    const run = await client.evals.runs.create(eval_id, {
      data_source: {
        type: 'completions',
        model: 'stories260k',
        source,
        input_messages: {
          type: 'template',
          template: [{ role: 'user', content: '{{item.question}}' }],
        },
        sampling_params: { temperature: 0, max_completion_tokens: 24 },
      },
    })
    while ((await client.evals.runs.retrieve(run.id, { eval_id })).status !== 'completed')
      await sleep(100)
  })

  test('stops when the score no longer rises and publishes the best; killed, the same', async () => {
    const before = await server.stored()
    const id = await startJob()
    const job = await ended(id)
    expect([job.status, job.error]).toEqual(['succeeded', null])
    const scores = await scoresOf(id)
    const steps = scores.map(({ step }) => step)
    expect(steps).toEqual(scores.map((_, i) => 6 * (i + 1)))
    const values = scores.map(({ eval_score }) => eval_score)
    const best = values.indexOf(Math.max(...values))
    // It was worth something, and it ended for want of a gain, not of epochs.
    expect(values[best]).toBeGreaterThan(values[0]! + 0.05)
    expect(values.length).toBeLessThan(N_EPOCHS)
    expect(values.length).toBe(best + 1 + PATIENCE)

    const { data: checkpoints } = await client.fineTuning.jobs.checkpoints.list(id)
    for (const checkpoint of checkpoints) {
      const metrics = checkpoint.metrics as unknown as Score
      const score = scores.find(({ step }) => step === checkpoint.step_number)
      expect([metrics.eval_score, metrics.eval_pass_rate]).toEqual([
        score?.eval_score,
        score?.eval_pass_rate,
      ])
    }
    const named = checkpoints.find((c) => c.fine_tuned_model_checkpoint === job.fine_tuned_model)
    expect(named?.step_number).toBe(steps[best])
    const messages = (await eventsOf(id)).map(({ message }) => message)
    expect(messages).toContain(`Step 6: eval score=${values[0]!.toFixed(4)}`)
    expect(messages.join('\n')).toContain(
      `Published the checkpoint of step ${steps[best]}: its eval`,
    )
    // biome-ignore lint/suspicious/noExplicitAny: ours beside OpenAI's fields
    const model = (await client.models.retrieve(job.fine_tuned_model ?? '')) as any
    expect(model.latest_eval).toMatchObject({ eval_id, run_id: scores[best]!.run_id, rows: 16 })
    const kept = (await server.stored()).filter((name) => !before.includes(name))

    const runsBefore = (await client.evals.runs.list(eval_id, { limit: 100 })).data.length
    const second = await startJob()
    const running = async () =>
      (await client.evals.runs.list(eval_id, { status: 'in_progress' })).data.length > 0
    let evaluating = 0
    for (let i = 0; i < KILLS; i++) {
      // The kills lie evenly over the job, by what it has told, each a little later than that: in training, and every
      // other time in an evaluation.
      const share = Math.floor((i * scores.length) / (KILLS + 1))
      while ((await scoresOf(second)).length < share) await sleep(20)
      await sleep(Math.random() * 300)
      while (i % 2 === 1 && !(await running())) await sleep(20)
      const { status } = await client.fineTuning.jobs.retrieve(second)
      expect(['validating_files', 'queued', 'running']).toContain(status)
      if (await running()) evaluating++
      await server.kill()
      await server.start()
    }
    expect(evaluating).toBeGreaterThan(0)
    const again = await ended(second)
    expect([again.status, again.error]).toEqual(['succeeded', null])
    const told = ({ step, eval_score, eval_pass_rate }: Score) => ({
      step,
      eval_score,
      eval_pass_rate,
    })
    expect((await scoresOf(second)).map(told)).toEqual(scores.map(told))
    expect(again.trained_tokens).toBe(job.trained_tokens)
    const csvOf = async (file: string | undefined) =>
      (await client.files.content(file ?? '')).text()
    expect(await csvOf(again.result_files[0])).toBe(await csvOf(job.result_files[0]))
    // Objects are named by their bytes: the same adapters, so nothing new at all.
    const after = (await server.stored()).filter((name) => !before.includes(name))
    expect(after.sort()).toEqual(kept.sort())
    const { data: runs } = await client.evals.runs.list(eval_id, { limit: 100 })
    expect(runs).toHaveLength(runsBefore + scores.length)
  })

  test('cancelled in the middle, it ends with its evaluation', async () => {
    const id = await startJob({ metric: 'eval_score', patience: 50 })
    const open = async () => {
      const { data } = await client.evals.runs.list(eval_id, { limit: 1, order: 'desc' })
      return data[0]!
    }
    while (!(await open()).name.startsWith(id)) await sleep(20)
    await client.fineTuning.jobs.cancel(id)
    let run = await open()
    for (let i = 0; i < 100 && ['queued', 'in_progress'].includes(run.status); i++) {
      await sleep(100)
      run = await open()
    }
    expect(['canceled', 'completed']).toContain(run.status)
    await sleep(500)
    expect((await open()).id).toBe(run.id)
  })
})
