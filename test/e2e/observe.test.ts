// What an operator sees of a job and its model: /metrics, and the log by the job's id.

import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const ROWS = 20
const EPOCHS = 2
const STEPS = 8

let server: LuthierServer
let client: OpenAI
let job: OpenAI.FineTuning.FineTuningJob
beforeAll(async () => {
  if (stories.missing) return
  server = await startLuthier(makeHome({ stories260k: stories.path }))
  client = new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 })
  const row = JSON.stringify({ prompt: 'Once upon a time', completion: ' there was a fox.' })
  const file = await client.files.create({
    file: await toFile(Buffer.from(`${row}\n`.repeat(ROWS)), 'rows.jsonl'),
    purpose: 'fine-tune',
  })
  const { id } = await client.fineTuning.jobs.create({
    model: 'stories260k',
    training_file: file.id,
    suffix: 'customer',
    method: {
      type: 'supervised',
      supervised: { hyperparameters: { n_epochs: EPOCHS, batch_size: 5 } },
    },
  })
  const done = async () => (await client.fineTuning.jobs.retrieve(id)).status === 'succeeded'
  await vi.waitUntil(done, { timeout: 120_000, interval: 300 })
  job = await client.fineTuning.jobs.retrieve(id)
})
afterAll(() => server?.[Symbol.asyncDispose]())

/** The page as `name{labels}` → value. */
const metrics = async () => {
  const reply = await fetch(new URL('/metrics', server.baseURL))
  const text = await reply.text()
  const values = text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))] as const)
  return { type: reply.headers.get('content-type'), text, values: new Map(values) }
}

test.skipIf(stories.missing)('the page counts what was trained, answered and asked', async () => {
  const { usage } = await client.completions.create({
    model: job.fine_tuned_model!,
    prompt: 'Once upon a time',
    max_tokens: 20,
  })
  const { values, text, type } = await metrics()
  expect(type).toContain('text/plain')
  expect(text).toContain('# TYPE luthier_device_turns_total counter')
  expect(text).toContain('# TYPE luthier_work gauge')
  expect(values.get('luthier_training_steps_total')).toBe(STEPS)
  expect(values.get('luthier_training_tokens_total')).toBe(job.trained_tokens)
  expect(values.get('luthier_training_tokens_per_second')).toBe(0)
  expect(values.get('luthier_fine_tuning_jobs{status="succeeded"}')).toBe(1)
  expect(values.get('luthier_inference_tokens_total{kind="completion"}')).toBe(
    usage?.completion_tokens,
  )
  expect(values.get('luthier_inference_tokens_total{kind="prompt"}')).toBe(usage?.prompt_tokens)
  expect(values.get('luthier_inference_choices')).toBe(0)
  expect(values.get('vllm:generation_tokens_total')).toBe(usage?.completion_tokens)
  expect(values.get('vllm:time_to_first_token_seconds_count')).toBe(1)
  expect(values.get('vllm:e2e_request_latency_seconds_count')).toBe(1)
  expect(values.get('vllm:inter_token_latency_seconds_count')).toBeGreaterThan(0)
  expect(values.get('vllm:request_queue_time_seconds_count')).toBe(1)
  expect(values.get('vllm:num_requests_running')).toBe(0)
  expect(values.get('vllm:num_requests_waiting')).toBe(0)
  expect(values.get('vllm:prefix_cache_queries_total')).toBeGreaterThan(0)
  expect(values.get('vllm:prefix_cache_hits_total')).toBe(0)
  expect(values.get('luthier_decode_steps_total')).toBeGreaterThan(0)
  expect(values.get('luthier_adapters_resident')).toBe(1)
  expect(values.get('luthier_adapters_resident_bytes')).toBeGreaterThan(1000)
  // Every token but the first is a row of a step, or was guessed in one and drawn.
  const guessed = values.get('vllm:spec_decode_num_accepted_tokens_total') ?? 0
  expect(guessed).toBeLessThanOrEqual(values.get('vllm:spec_decode_num_draft_tokens_total') ?? 0)
  expect((values.get('luthier_decode_rows_total') ?? 0) + guessed).toBeGreaterThanOrEqual(
    (usage?.completion_tokens ?? 0) - 1,
  )
  expect(values.get('luthier_batch_slots')).toBe(16)
  const again = { model: 'stories260k', prompt: 'Once upon a time there was a fox. '.repeat(6) }
  for (let time = 0; time < 2; time++) await client.completions.create({ ...again, max_tokens: 2 })
  expect((await metrics()).values.get('vllm:prefix_cache_hits_total')).toBeGreaterThan(0)
  const count = 'luthier_http_request_duration_seconds_count'
  const labels = 'method="POST",route="/v1/completions",status="200"'
  expect(values.get(`${count}{${labels}}`)).toBe(1)
  for (const claimant of ['serving', 'training']) {
    expect(values.get(`luthier_device_turns_total{claimant="${claimant}"}`)).toBeGreaterThan(0)
    expect(values.get(`luthier_device_seconds_total{claimant="${claimant}"}`)).toBeGreaterThan(0)
    expect(values.get(`luthier_device_waiting{claimant="${claimant}"}`)).toBe(0)
  }
  expect(values.get('nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0)
  expect(values.get('process_resident_memory_bytes')).toBeGreaterThan(1e7)
  // Nobody's names, for the page needs no key.
  for (const secret of ['customer', job.id, job.organization_id, 'ft:', 'sk-'])
    expect(text).not.toContain(secret)
})

test.skipIf(stories.missing)("the log tells a job's life by its id, in order", async () => {
  const lines = server.log().filter((line) => JSON.stringify(line).includes(job.id))
  expect(lines.map((line) => line.msg)).toEqual([
    'job created',
    'work claimed',
    'job planned',
    'training started',
    ...Array(EPOCHS).fill(['checkpoint saved', 'state saved']).flat(),
    'job succeeded',
  ])
})
