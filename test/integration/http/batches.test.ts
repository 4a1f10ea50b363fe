// Batches over HTTP, from a file of requests to the files of answers; and what happens to bad lines, the time and an
// end that is asked for.

import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Worker } from '../../../src/service/work/worker.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { bearer } from '../../support/service.ts'
import { suiteFolder } from '../../support/temporary.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

const folder = suiteFolder()
const CHAT = '/v1/chat/completions'
let api: TestApi
let worker: Worker | undefined
beforeAll(async () => {
  const models = join(folder, 'models')
  await mkdir(models)
  await writeTinyModel(join(models, 'tiny'), {
    chat: true,
    config: { max_position_embeddings: 1024 },
  })
  await writeTinyEncoder(join(models, 'encoder'), { head: false })
  await writeTinyEncoder(join(models, 'harm'), { labels: ['none', 'hate', 'violence'] })
  api = await openTestApi({ models })
})
afterAll(async () => {
  await worker?.stop()
  await api?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
type Reply = any

const line = (custom_id: string, url: string, body: object) => ({
  custom_id,
  method: 'POST',
  url,
  body,
})
const chat = (i: number, more: object = {}) => ({
  model: 'tiny',
  messages: [{ role: 'user', content: `Say ${i}` }],
  max_tokens: 3,
  temperature: 0,
  ...more,
})
const asLines = (rows: readonly unknown[]) =>
  rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n')

async function create(endpoint: string, rows: readonly unknown[], more: object = {}) {
  const input_file_id = await api.upload(asLines(rows), { purpose: 'batch' })
  const { status, body } = await api.post('/v1/batches', {
    input_file_id,
    endpoint,
    completion_window: '24h',
    ...more,
  })
  expect(status, JSON.stringify(body)).toBe(200)
  expect(body).toMatchObject({ object: 'batch', status: 'validating', input_file_id })
  return body
}

async function until(id: string, done: (batch: Reply) => boolean): Promise<Reply> {
  for (let i = 0; i < 1200; i++) {
    const { body } = await api.get(`/v1/batches/${id}`)
    if (done(body)) return body
    await sleep(25)
  }
  throw new Error(`The batch ${id} has not come to that.`)
}
const ended = (id: string): Promise<Reply> =>
  until(id, ({ status }) => ['completed', 'failed', 'expired', 'cancelled'].includes(status))

async function fileLines(id: string): Promise<Reply[]> {
  const { body: file } = await api.get(`/v1/files/${id}`)
  expect(file).toMatchObject({ purpose: 'batch_output', status: 'processed' })
  expect(file.expires_at - file.created_at).toBeGreaterThan(0)
  const url = `/v1/files/${id}/content`
  const { payload } = await api.app.inject({ url, headers: bearer(api.key) })
  return payload
    .trimEnd()
    .split('\n')
    .map((text) => JSON.parse(text))
}

test('each line is answered as over HTTP; those that meet an error are in a file of their own', async () => {
  const rows = Array.from({ length: 20 }, (_, i) => line(`r-${i}`, CHAT, chat(i)))
  rows[3] = line('no model', CHAT, chat(3, { model: 'missing' }))
  rows[7] = line('no sense', CHAT, { model: 'tiny', messages: 'x' })
  const { id } = await create(CHAT, [...rows.slice(0, 5), '', ...rows.slice(5)], {
    metadata: { of: 'the test' },
  })
  worker ??= await api.startBatching()
  const batch = await ended(id)
  expect(batch).toMatchObject({
    status: 'completed',
    request_counts: { total: 20, completed: 18, failed: 2 },
    metadata: { of: 'the test' },
  })
  expect(batch).not.toHaveProperty('model')
  for (const time of ['in_progress_at', 'finalizing_at', 'completed_at', 'expires_at'])
    expect(batch[time]).toBeGreaterThanOrEqual(batch.created_at)

  const answers = await fileLines(batch.output_file_id)
  expect(answers.map(({ custom_id }) => custom_id)).toEqual(
    rows.map(({ custom_id }) => custom_id).filter((name) => name.startsWith('r-')),
  )
  const direct = await api.post(CHAT, chat(5))
  const own = answers.find(({ custom_id }) => custom_id === 'r-5')
  expect(own).toMatchObject({
    id: expect.stringMatching(/^batch_req_/),
    error: null,
    response: {
      status_code: 200,
      request_id: expect.stringMatching(/^req_/),
      body: { object: 'chat.completion', model: 'tiny', choices: direct.body.choices },
    },
  })
  const used = answers.reduce((n, { response }) => n + response.body.usage.total_tokens, 0)
  expect(batch.usage.total_tokens).toBe(used)

  const errors = await fileLines(batch.error_file_id)
  expect(errors).toMatchObject([
    { custom_id: 'no model', response: { status_code: 404 } },
    { custom_id: 'no sense', response: { status_code: 400 } },
  ])
  const same = await api.post(CHAT, rows[7]!.body)
  expect(errors[1].response.body).toEqual(same.body)
})

test.each([
  ['/v1/moderations', { model: 'harm', input: 'a' }, undefined],
  ['/v1/classifications', { model: 'harm', input: 'a' }, 'list'],
])('%s is answered too', async (url, body, object) => {
  worker ??= await api.startBatching()
  const batch = await ended((await create(url, [line('one', url, body)])).id)
  expect(batch.request_counts).toEqual({ total: 1, completed: 1, failed: 0 })
  const [answer] = await fileLines(batch.output_file_id)
  expect(answer.response).toMatchObject({ status_code: 200 })
  expect(answer.response.body.object).toBe(object)
})

test('completions, responses and embeddings are answered too, and the model is told where it is one', async () => {
  worker ??= await api.startBatching()
  const texts = await create(
    '/v1/completions',
    [1, 2].map((i) =>
      line(`c-${i}`, '/v1/completions', { model: 'tiny', prompt: `${i}`, max_tokens: 2 }),
    ),
  )
  const vectors = await create(
    '/v1/embeddings',
    [1, 2].map((i) => line(`e-${i}`, '/v1/embeddings', { model: 'encoder', input: ['a', 'b'] })),
  )
  const told = await create('/v1/responses', [
    line('r', '/v1/responses', { model: 'tiny', input: 'a', max_output_tokens: 16 }),
  ])
  const [one, other] = [await ended(texts.id), await ended(vectors.id)]
  const { output_file_id, usage } = await ended(told.id)
  const [answer] = await fileLines(output_file_id)
  expect(answer.response.body).toMatchObject({ object: 'response', usage })
  const kept = await api.get(`/v1/responses/${answer.response.body.id}`)
  expect(kept.body).toEqual(answer.response.body)
  expect(one).toMatchObject({ status: 'completed', model: 'tiny' })
  expect(one).not.toHaveProperty('error_file_id')
  expect((await fileLines(one.output_file_id))[0].response.body.object).toBe('text_completion')
  expect(other).toMatchObject({ status: 'completed', model: 'encoder' })
  const [first] = await fileLines(other.output_file_id)
  expect(first.response.body.data[1].embedding).toHaveLength(16)
})

test('bad lines fail the batch before a request is answered, each by its number', async () => {
  worker ??= await api.startBatching()
  const { id } = await create(CHAT, [
    line('a', CHAT, chat(1)),
    '{"custom_id": "b", ',
    line('a', CHAT, chat(2)),
    '',
    line('c', '/v1/embeddings', chat(3)),
    { method: 'POST', url: CHAT, body: chat(4) },
    { ...line('d', CHAT, chat(5)), method: 'GET' },
    line('e', CHAT, chat(6, { stream: true })),
    '[1]',
  ])
  const batch = await ended(id)
  expect(batch).toMatchObject({
    status: 'failed',
    failed_at: expect.any(Number),
    request_counts: { total: 0, completed: 0, failed: 0 },
  })
  expect(batch.errors.data.map((e: Reply) => [e.line, e.code, e.param])).toEqual([
    [2, 'invalid_json_line', null],
    [3, 'duplicate_custom_id', 'custom_id'],
    [5, 'invalid_url', 'url'],
    [6, 'missing_required_parameter', 'custom_id'],
    [7, 'invalid_method', 'method'],
    [8, 'unsupported_parameter', 'body.stream'],
    [9, 'invalid_request', null],
  ])
  const empty = await ended((await create(CHAT, ['', ' '])).id)
  expect(empty.errors.data).toMatchObject([{ code: 'empty_file', line: null }])
})

test.each([
  ['no such file', { input_file_id: 'file-none' }, 'input_file_id'],
  ['an endpoint that is none', { endpoint: '/v1/images/generations' }, 'endpoint'],
  ['another window', { completion_window: '48h' }, 'completion_window'],
  ['a field of no batch', { priority: 1 }, 'priority'],
])('refused: %s', async (_, fields, param) => {
  const input_file_id = await api.upload('{}', { purpose: 'batch' })
  const body = { input_file_id, endpoint: CHAT, completion_window: '24h', ...fields }
  const { status, body: reply } = await api.post('/v1/batches', body)
  expect(status).toBe(400)
  expect(reply.error.param).toBe(param)
})

test('a file of another purpose is refused', async () => {
  const input_file_id = await api.upload('{"prompt":"a","completion":"b"}')
  const body = { input_file_id, endpoint: CHAT, completion_window: '24h' }
  const { status, body: reply } = await api.post('/v1/batches', body)
  expect(status).toBe(400)
  expect(reply.error.message).toMatch(/purpose 'fine-tune'/)
})

test('cancelled in the middle: what is answered stays, the rest is written off, and nothing twice', async () => {
  worker ??= await api.startBatching()
  const rows = Array.from({ length: 60 }, (_, i) =>
    line(`r-${i}`, CHAT, chat(i, { max_tokens: 300, logit_bias: { 257: -100 } })),
  )
  const { id } = await create(CHAT, rows)
  await until(id, ({ request_counts }) => request_counts.completed > 0)
  const { status, body } = await api.post(`/v1/batches/${id}/cancel`)
  expect([status, body.status]).toEqual([200, 'cancelling'])
  const batch = await ended(id)
  const { completed, failed, total } = batch.request_counts
  expect(batch).toMatchObject({ status: 'cancelled', cancelled_at: expect.any(Number) })
  expect([total, completed + failed]).toEqual([60, 60])
  expect(failed).toBeGreaterThan(0)
  const answers = await fileLines(batch.output_file_id)
  const errors = await fileLines(batch.error_file_id)
  expect([answers.length, errors.length]).toEqual([completed, failed])
  expect(errors[0]).toMatchObject({ response: null, error: { code: 'batch_cancelled' } })
  const names = [...answers, ...errors].map(({ custom_id }) => custom_id)
  expect(new Set(names)).toEqual(new Set(rows.map(({ custom_id }) => custom_id)))
  const again = await api.post(`/v1/batches/${id}/cancel`)
  expect([again.status, again.body.error.code]).toEqual([400, 'invalid_batch_state'])
})

test('what is not answered in its window expires; what was answered is kept', async () => {
  await worker?.stop()
  const rows = Array.from({ length: 60 }, (_, i) =>
    line(`r-${i}`, CHAT, chat(i, { max_tokens: 300, logit_bias: { 257: -100 } })),
  )
  const { id } = await create(CHAT, rows)
  await api.db.query("update batches set expires_at = now() + interval '1 second' where id = $1", [
    id,
  ])
  worker = await api.startBatching()
  const batch = await ended(id)
  expect(batch).toMatchObject({ status: 'expired', expired_at: expect.any(Number) })
  expect(batch.request_counts.failed).toBeGreaterThan(0)
  const errors = await fileLines(batch.error_file_id)
  expect(errors).toHaveLength(batch.request_counts.failed)
  expect(errors[0]).toMatchObject({ response: null, error: { code: 'batch_expired' } })
})

test('stopped and taken up again, it goes on where it was; its input may be deleted meanwhile', async () => {
  worker ??= await api.startBatching()
  const rows = Array.from({ length: 40 }, (_, i) =>
    line(`r-${i}`, CHAT, chat(i, { max_tokens: 60 })),
  )
  const { id, input_file_id } = await create(CHAT, rows)
  await until(id, ({ request_counts }) => request_counts.completed > 0)
  await worker.stop()
  const { body: stopped } = await api.get(`/v1/batches/${id}`)
  expect(stopped.status).toBe('in_progress')
  expect(stopped.request_counts.completed).toBeLessThan(40)
  await api.delete(`/v1/files/${input_file_id}`)
  worker = await api.startBatching()
  const batch = await ended(id)
  expect(batch).toMatchObject({ status: 'completed', request_counts: { completed: 40, failed: 0 } })
  const names = (await fileLines(batch.output_file_id)).map(({ custom_id }) => custom_id)
  expect(names).toEqual(rows.map(({ custom_id }) => custom_id))
  const { rows: left } = await api.db.query('select * from batch_answers')
  expect(left).toEqual([])
})

test('lists are paged, newest first, and other projects see none of it', async () => {
  const { body } = await api.get('/v1/batches?limit=2')
  expect(body).toMatchObject({ object: 'list', has_more: true })
  const next = await api.get(`/v1/batches?limit=100&after=${body.last_id}`)
  const ids = [...body.data, ...next.body.data].map(({ id }: Reply) => id)
  expect(new Set(ids).size).toBe(ids.length)
  const stranger = await api.stranger()
  expect((await stranger.get('/v1/batches')).body.data).toEqual([])
  expect((await stranger.get(`/v1/batches/${ids[0]}`)).status).toBe(404)
  expect((await stranger.post(`/v1/batches/${ids[0]}/cancel`)).status).toBe(404)
})
