// Evals over HTTP, from the rows to the counts, with a tiny model; and what a run does when it is taken up again.

import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Worker } from '../../../src/service/work/worker.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { suiteFolder } from '../../support/temporary.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

const folder = suiteFolder()
let api: TestApi
let worker: Worker
beforeAll(async () => {
  const models = join(folder, 'models')
  await mkdir(models)
  await writeTinyModel(join(models, 'tiny'), { chat: true })
  await writeTinyEncoder(join(models, 'labels'), { head: true })
  api = await openTestApi({ models })
  worker = api.startEvaluating()
})
afterAll(async () => {
  await worker?.stop()
  await api?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

const exact = {
  type: 'string_check',
  name: 'exact',
  input: '{{sample.output_text}}',
  reference: '{{item.label}}',
  operation: 'eq',
}
const alike = {
  type: 'text_similarity',
  name: 'alike',
  input: '{{sample.output_text}}',
  reference: '{{item.label}}',
  evaluation_metric: 'fuzzy_match',
  pass_threshold: 0.5,
}
const schema = {
  type: 'object',
  properties: { label: { type: 'string' } },
  required: ['label'],
}

async function create(testing_criteria: object[] = [exact, alike]): Promise<string> {
  const { status, body } = await api.post('/v1/evals', {
    name: 'intents',
    data_source_config: { type: 'custom', item_schema: schema, include_sample_schema: true },
    testing_criteria,
  })
  expect(status, JSON.stringify(body)).toBe(201)
  return body.id
}

async function start(eval_id: string, data_source: object, more: object = {}): Promise<string> {
  const { status, body } = await api.post(`/v1/evals/${eval_id}/runs`, { data_source, ...more })
  expect(status, JSON.stringify(body)).toBe(201)
  expect(body.status).toBe('queued')
  return body.id
}

async function ended(eval_id: string, run_id: string) {
  for (let i = 0; i < 600; i++) {
    const { body } = await api.get(`/v1/evals/${eval_id}/runs/${run_id}`)
    if (!['queued', 'in_progress'].includes(body.status)) return body
    await sleep(50)
  }
  throw new Error(`The run ${run_id} has not ended.`)
}

const content = (rows: [label: string, text: string][]) => ({
  type: 'file_content',
  content: rows.map(([label, output_text]) => ({ item: { label }, sample: { output_text } })),
})

const asked = (rows: object[], more: object = {}) => ({
  type: 'completions',
  model: 'tiny',
  input_messages: { type: 'template', template: [{ role: 'user', content: 'Say {{item.label}}' }] },
  sampling_params: { temperature: 0, max_completion_tokens: 4, seed: 1 },
  source: { type: 'file_content', content: rows.map((item) => ({ item })) },
  ...more,
})

test('samples that come with the rows are graded, by each criterion and as a whole', async () => {
  const eval_id = await create()
  const rows = content([
    ['card', 'card'],
    ['card', 'cards'],
    ['card', 'none of it'],
  ])
  const run_id = await start(eval_id, { type: 'jsonl', source: rows })
  const run = await ended(eval_id, run_id)
  expect(run).toMatchObject({
    status: 'completed',
    error: null,
    result_counts: { total: 3, passed: 1, failed: 2, errored: 0 },
    per_testing_criteria_results: [
      { testing_criteria: 'alike', passed: 2, failed: 1 },
      { testing_criteria: 'exact', passed: 1, failed: 2 },
    ],
    data_source: { type: 'jsonl', source: rows },
  })
  const items = `/v1/evals/${eval_id}/runs/${run_id}/output_items`
  const { body: all } = await api.get(items)
  expect(all.data.map((item: { status: string }) => item.status)).toEqual(['pass', 'fail', 'fail'])
  expect(all.data[1]).toMatchObject({
    object: 'eval.run.output_item',
    datasource_item_id: 1,
    datasource_item: { label: 'card' },
    results: [
      { name: 'exact', score: 0, passed: false },
      { name: 'alike', score: 8 / 9, passed: true },
    ],
    sample: { output: [{ role: 'assistant', content: 'cards' }] },
  })
  const { body: failing } = await api.get(`${items}?status=fail&limit=1`)
  expect(failing).toMatchObject({ has_more: true, data: [{ id: all.data[1].id }] })
  const { body: next } = await api.get(`${items}?status=fail&after=${failing.last_id}`)
  expect(next).toMatchObject({ has_more: false, data: [{ id: all.data[2].id }] })
  expect((await api.get(`${items}/${all.data[0].id}`)).body).toEqual(all.data[0])
})

test('a model is asked, and what it says is what /chat/completions says', async () => {
  const eval_id = await create()
  const labels = Array.from({ length: 20 }, (_, i) => ({ label: `cat ${i}` }))
  const run = await ended(eval_id, await start(eval_id, asked(labels)))
  expect(run).toMatchObject({ status: 'completed', model: 'tiny', result_counts: { total: 20 } })
  expect(run.per_model_usage).toMatchObject([{ model_name: 'tiny', invocation_count: 20 }])
  const items = `/v1/evals/${eval_id}/runs/${run.id}/output_items?limit=100`
  const { data } = (await api.get(items)).body
  expect(data).toHaveLength(20)
  const { body: chat } = await api.post('/v1/chat/completions', {
    model: 'tiny',
    messages: [{ role: 'user', content: 'Say cat 7' }],
    temperature: 0,
    max_tokens: 4,
  })
  expect(data[7].sample).toMatchObject({
    input: [{ role: 'user', content: 'Say cat 7' }],
    output: [{ role: 'assistant', content: chat.choices[0].message.content }],
    finish_reason: chat.choices[0].finish_reason,
    usage: { prompt_tokens: chat.usage.prompt_tokens },
    seed: 1,
  })
})

test('a classifier answers with its label', async () => {
  const eval_id = await create([exact])
  const source = asked([{ label: 'x' }], { model: 'labels' })
  const run = await ended(eval_id, await start(eval_id, source))
  const { data } = (await api.get(`/v1/evals/${eval_id}/runs/${run.id}/output_items`)).body
  const { body } = await api.post('/v1/classifications', { model: 'labels', input: 'Say x' })
  expect(data[0].sample.output[0].content).toBe(body.data[0].label)
})

test('examples are chosen so that they fit, and stand before each prompt', async () => {
  // Of four labels one has nearly all rows.
  const rows = Array.from({ length: 40 }, (_, i) =>
    JSON.stringify({ text: `t${i}`, label: `l${Math.max(0, i - 36)}` }),
  )
  const file_id = await api.upload(rows.join('\n'))
  const eval_id = await create()
  const few_shot = { file_id, examples: 'auto', max_prompt_tokens: 90 }
  const id = await start(eval_id, asked([{ label: 'a' }, { label: 'bc' }]), {
    luthier: { few_shot },
  })
  const run = await ended(eval_id, id)
  expect(run.status, JSON.stringify(run.error)).toBe('completed')
  const { examples, prompt_tokens } = run.luthier.few_shot.chosen
  expect(examples).toBeGreaterThan(1)
  expect(examples).toBeLessThan(40)
  expect(prompt_tokens).toBeLessThanOrEqual(90)
  // One more would not have fitted.
  expect(prompt_tokens + prompt_tokens / examples).toBeGreaterThan(90)
  const { data } = (await api.get(`/v1/evals/${eval_id}/runs/${id}/output_items`)).body
  const { input, usage } = data[1].sample
  expect(input).toHaveLength(2 * examples + 1)
  expect(input.at(-1)).toEqual({ role: 'user', content: 'Say bc' })
  expect(usage.prompt_tokens).toBe(prompt_tokens)
  const shown = input.filter(({ role }: { role: string }) => role === 'assistant')
  const different = new Set(shown.map(({ content }: { content: string }) => content))
  expect(different.size).toBe(Math.min(4, examples))
})

test('rows that cannot be asked are errors of their own, the others go on', async () => {
  const eval_id = await create()
  const source = asked([{ label: 'a' }, { label: 'b '.repeat(5000) }, { label: 'c' }])
  const run = await ended(eval_id, await start(eval_id, source))
  expect(run).toMatchObject({ status: 'completed', result_counts: { total: 3, errored: 1 } })
  const { data } = (await api.get(`/v1/evals/${eval_id}/runs/${run.id}/output_items`)).body
  expect(data[1]).toMatchObject({
    status: 'error',
    sample: { output: [], error: { code: 'context_length_exceeded' } },
    results: [{ name: 'exact', passed: false }, { name: 'alike' }],
  })
})

test('a run whose worker stopped in the middle goes on with the rows that are not done', async () => {
  const eval_id = await create()
  const labels = Array.from({ length: 64 }, (_, i) => ({ label: `dog ${i}` }))
  const id = await start(eval_id, asked(labels, { sampling_params: { max_completion_tokens: 40 } }))
  const counts = async () => {
    const { body } = await api.get(`/v1/evals/${eval_id}/runs/${id}`)
    return body.result_counts
  }
  const done = ({ passed, failed, errored }: Record<string, number>) => passed! + failed! + errored!
  while (done(await counts()) === 0) await sleep(5)
  await worker.stop()
  const stopped = await counts()
  expect(done(stopped)).toBeLessThan(64)
  const { body: before } = await api.get(`/v1/evals/${eval_id}/runs/${id}/output_items?limit=100`)
  worker = api.startEvaluating()
  const run = await ended(eval_id, id)
  expect(run).toMatchObject({ status: 'completed', result_counts: { total: 64 } })
  expect(done(run.result_counts)).toBe(64)
  const { body: after } = await api.get(`/v1/evals/${eval_id}/runs/${id}/output_items?limit=100`)
  expect(after.data.map((item: { datasource_item_id: number }) => item.datasource_item_id)).toEqual(
    labels.map((_, i) => i),
  )
  expect(after.data).toEqual(expect.arrayContaining(before.data))
  expect(run.per_model_usage[0].invocation_count).toBe(64)
})

test('a run is canceled, once; a deleted eval takes its runs along and leaves no bytes', async () => {
  const eval_id = await create()
  const stored = await api.stored()
  const labels = Array.from({ length: 200 }, (_, i) => ({ label: `bird ${i}` }))
  const id = await start(eval_id, asked(labels, { sampling_params: { max_completion_tokens: 60 } }))
  const url = `/v1/evals/${eval_id}/runs/${id}`
  expect((await api.post(url)).body.status).toBe('canceled')
  const again = await api.post(url)
  expect(again.status).toBe(400)
  expect(again.body.error.code).toBe('invalid_run_state')
  expect((await api.get(`/v1/evals/${eval_id}/runs?status=canceled`)).body.data).toHaveLength(1)
  expect((await api.delete(`/v1/evals/${eval_id}`)).body).toEqual({
    object: 'eval.deleted',
    deleted: true,
    eval_id,
  })
  expect((await api.get(url)).status).toBe(404)
  expect(await api.stored()).toEqual(stored)
})

test('evals are listed, renamed and found again', async () => {
  const id = await create()
  const { body } = await api.post(`/v1/evals/${id}`, { name: 'new', metadata: { a: 'b' } })
  expect(body).toMatchObject({
    id,
    name: 'new',
    metadata: { a: 'b' },
    data_source_config: {
      type: 'custom',
      schema: { properties: { item: schema }, required: ['item', 'sample'] },
    },
    testing_criteria: [exact, alike],
  })
  const { body: list } = await api.get('/v1/evals?order=desc&order_by=updated_at&limit=1')
  expect(list).toMatchObject({ has_more: true, data: [{ id }] })
})

test.each([
  [
    'logs',
    { data_source_config: { type: 'logs' } },
    'unsupported_data_source',
    'data_source_config.type',
  ],
  [
    'a python grader',
    { testing_criteria: [{ type: 'python', name: 'p', source: 'x' }] },
    'unsupported_grader',
    'testing_criteria[0]',
  ],
  ['two of one name', { testing_criteria: [exact, exact] }, 'invalid_value', 'testing_criteria'],
  ['no criteria', { testing_criteria: [] }, 'invalid_value', 'testing_criteria'],
  [
    'a wrong template',
    {
      testing_criteria: [
        { ...exact, input: '{{item}' },
        { ...alike, input: '{{ x }}' },
      ],
    },
    'invalid_template',
    'testing_criteria[1].input',
  ],
])('an eval of %s is refused', async (_, more, code, param) => {
  const { status, body } = await api.post('/v1/evals', {
    data_source_config: { type: 'custom', item_schema: schema },
    testing_criteria: [exact],
    ...more,
  })
  expect(status).toBe(400)
  expect(body.error).toMatchObject({ code, param })
})

test.each([
  [
    'an unknown model',
    asked([{ label: 'a' }], { model: 'gpt-none' }),
    404,
    'model_not_found',
    'model',
  ],
  [
    'a row that does not fit',
    asked([{ label: 'a' }, { label: 1 }]),
    400,
    'invalid_item',
    'data_source.source.content[1]',
  ],
  ['no rows', asked([]), 400, 'invalid_value', 'data_source.source.content'],
  [
    'no messages',
    { type: 'completions', model: 'tiny', source: content([['a', 'b']]) },
    400,
    'missing_required_parameter',
    'data_source.input_messages',
  ],
  [
    'stored completions',
    asked([], { source: { type: 'stored_completions' } }),
    400,
    'unsupported_data_source',
    'data_source.source.type',
  ],
  [
    'a missing file',
    asked([], { source: { type: 'file_id', id: 'file-none' } }),
    400,
    'invalid_file',
    'data_source.source.id',
  ],
  [
    'a response format',
    asked([{ label: 'a' }], { sampling_params: { response_format: { type: 'json_object' } } }),
    400,
    'unsupported_parameter',
    'data_source.sampling_params.response_format',
  ],
])('a run with %s is refused', async (_, data_source, status, code, param) => {
  const eval_id = await create()
  const reply = await api.post(`/v1/evals/${eval_id}/runs`, { data_source })
  expect(reply.body.error).toMatchObject({ code, param })
  expect(reply.status).toBe(status)
})

test('a file whose rows do not fit fails the run, and says where', async () => {
  const eval_id = await create()
  const file = await api.upload('{"item": {"label": "a"}}\n\n{"item": {}}\n', { purpose: 'evals' })
  const source = { type: 'file_id', id: file }
  const run = await ended(eval_id, await start(eval_id, { type: 'jsonl', source }))
  expect(run).toMatchObject({
    status: 'failed',
    error: { code: 'invalid_item', message: expect.stringContaining('Line 3 of the file') },
  })
})

const ofSchema = (item_schema: object) =>
  api.post('/v1/evals', {
    data_source_config: { type: 'custom', item_schema },
    testing_criteria: [exact],
  })

test('a regular expression that never ends refuses the request or fails the run, and the server goes on', async () => {
  const { body: one } = await ofSchema({
    type: 'object',
    properties: { label: { type: 'string', pattern: '^(a+)+$' } },
  })
  const row = { item: { label: `${'a'.repeat(60)}b` }, sample: { output_text: 'a' } }
  const inline = { type: 'jsonl', source: { type: 'file_content', content: [row] } }
  const refused = api.post(`/v1/evals/${one.id}/runs`, { data_source: inline })
  // Meanwhile others are answered.
  expect((await api.get(`/v1/evals/${one.id}`)).status).toBe(200)
  const { status, body } = await refused
  expect([status, body.error.code]).toEqual([400, 'invalid_item'])
  expect(body.error.message).toMatch(/took longer than 15 s/)

  const id = await api.upload(`${JSON.stringify(row)}\n`, { purpose: 'evals' })
  const source = { type: 'file_id', id }
  const run = await ended(one.id, await start(one.id, { type: 'jsonl', source }))
  expect(run).toMatchObject({ status: 'failed', error: { code: 'invalid_item' } })
  expect(run.error.message).toMatch(/Row 1 .*took longer than 15 s/)
  // The next one has a thread of its own.
  const eval_id = await create()
  const good = await ended(
    eval_id,
    await start(eval_id, { type: 'jsonl', source: content([['a', 'a']]) }),
  )
  expect(good.status).toBe('completed')
})

test.each([
  [
    'a pattern that is none',
    { properties: { label: { pattern: '(' } } },
    /properties\/label\/pattern/,
  ],
  ['a property pattern that is none', { patternProperties: { '[': {} } }, /patternProperties/],
  ['levels without end', JSON.parse(`${'{"not":'.repeat(500)}{}${'}'.repeat(500)}`), /100 levels/],
])('a schema with %s is refused', async (_, item_schema, message) => {
  const { status, body } = await ofSchema(item_schema)
  expect([status, body.error?.code, body.error?.param]).toEqual([
    400,
    'invalid_schema',
    'data_source_config.item_schema',
  ])
  expect(body.error.message).toMatch(message)
})

test('a schema that refers to itself alone refuses rows', async () => {
  const { body: one } = await ofSchema({ $ref: '#' })
  const source = content([['a', 'a']])
  const { status, body } = await api.post(`/v1/evals/${one.id}/runs`, {
    data_source: { type: 'jsonl', source },
  })
  expect([status, body.error.code]).toEqual([400, 'invalid_item'])
  expect(body.error.message).toMatch(/cannot be held against the schema/)
})
