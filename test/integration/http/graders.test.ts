// Graders over HTTP, with real models where one is asked; and what must not hurt the server.

import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Grading } from '../../../src/service/evals/grading.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { suiteFolder } from '../../support/temporary.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

const folder = suiteFolder()
let api: TestApi
beforeAll(async () => {
  const models = join(folder, 'models')
  await mkdir(models)
  await writeTinyModel(join(models, 'tiny'), { chat: true })
  await writeTinyEncoder(join(models, 'encoder'), { head: false })
  api = await openTestApi({ models })
})
afterAll(async () => {
  await api?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

const run = (grader: object, item: object, model_sample: string) =>
  api.post('/v1/fine_tuning/alpha/graders/run', { grader, item, model_sample })

const check = (more: object = {}) => ({
  type: 'string_check',
  name: 'exact',
  input: '{{sample.output_text}}',
  reference: '{{item.label}}',
  operation: 'eq',
  ...more,
})

test('graders of every kind that asks no model are run', async () => {
  const alike = {
    type: 'text_similarity',
    name: 'alike',
    input: '{{sample.output_text}}',
    reference: '{{item.label}}',
    evaluation_metric: 'fuzzy_match',
    pass_threshold: 0.8,
  }
  const script = {
    type: 'javascript',
    name: 'length',
    source:
      'function grade(sample, item) { return (sample.output_text.length + item.label.length) / 18 }',
  }
  const multi = {
    type: 'multi',
    name: 'all',
    graders: { exact: check(), alike, script },
    calculate_output: '0.5 * exact + 0.3 * alike + min(script, 0.2)',
  }
  expect((await run(check(), { label: 'card' }, 'card')).body).toMatchObject({
    reward: 1,
    metadata: { name: 'exact', type: 'string_check', token_usage: null, sampled_model_name: null },
    sub_rewards: {},
  })
  for (const [operation, label, reward] of [
    ['eq', 'Card', 0],
    ['ne', 'Card', 1],
    ['ne', 'a card', 0],
    ['like', 'card', 1],
    ['like', 'Card', 0],
    ['ilike', 'Card', 1],
    ['ilike', 'cord', 0],
  ] as const) {
    const { body } = await run(check({ operation }), { label }, 'a card')
    expect(body.reward, `${operation} ${label}`).toBe(reward)
  }
  expect((await run(alike, { label: 'card' }, 'cards')).body.reward).toBeCloseTo(8 / 9, 12)
  const { body } = await run(multi, { label: 'card' }, 'cards')
  expect(body.reward).toBeCloseTo((0.3 * 8) / 9 + 0.2, 12)
  expect(body.sub_rewards).toEqual({ exact: 0, alike: 8 / 9, script: 0.5 })
})

test('a model of this server is asked, and what it used is told', async () => {
  const judge = {
    type: 'score_model',
    name: 'judge',
    model: 'tiny',
    input: [{ role: 'user', content: 'Rate: {{sample.output_text}}' }],
    sampling_params: { temperature: 0, max_completions_tokens: 24 },
    range: [-1e300, 1e300],
  }
  // The weights are random: other things are rated until what it says holds a number, and one does not.
  const answers = new Map<boolean, { rated: string; said: string }>()
  for (const rated of 'BSACDEFGHIJKLMNOPQRTUVWXYZabcdefghijklmnopqrstuvwxyz') {
    const { body } = await api.post('/v1/chat/completions', {
      model: 'tiny',
      messages: [{ role: 'user', content: `Rate: ${rated}` }],
      temperature: 0,
      max_tokens: 24,
    })
    const said: string = body.choices[0].message.content
    answers.set(/\d/.test(said), { rated, said })
    if (answers.size === 2) break
  }
  const { rated, said } = answers.get(true)!
  const score = Number(/[-+]?(\d+(\.\d+)?|\.\d+)/.exec(said)![0])
  const { status, body } = await run(judge, {}, rated)
  expect([status, body.reward]).toEqual([200, score])
  const { metadata, model_grader_token_usage_per_model } = body
  expect(metadata.errors.model_grader_parse_error).toBe(false)
  for (const [range, text] of [
    [[score + 1, score + 2], rated],
    [judge.range, answers.get(false)!.rated],
  ]) {
    const { body } = await run({ ...judge, range }, {}, text as string)
    expect([body.reward, body.metadata.errors.model_grader_parse_error]).toEqual([0, true])
  }
  expect(metadata.sampled_model_name).toBe('tiny')
  expect(metadata.token_usage).toBe(model_grader_token_usage_per_model.tiny.total_tokens)
  expect(model_grader_token_usage_per_model.tiny.completion_tokens).toBeGreaterThan(0)
  expect(model_grader_token_usage_per_model.tiny.completion_tokens).toBeLessThanOrEqual(24)

  const missing = await run({ ...judge, model: 'gpt-none' }, {}, 'a card')
  expect(missing.body.metadata.errors).toMatchObject({
    model_grader_server_error: true,
    model_grader_server_error_details: expect.stringContaining('gpt-none'),
  })
})

test('cosine compares the vectors of the installed encoder, as /embeddings gives them', async () => {
  const cosine = {
    type: 'text_similarity',
    name: 'near',
    input: '{{sample.output_text}}',
    reference: '{{item.label}}',
    evaluation_metric: 'cosine',
  }
  expect((await run(cosine, { label: 'a' }, 'a')).body.reward).toBeCloseTo(1, 5)
  const { body } = await run(cosine, { label: 'a b' }, 'b')
  const { body: vectors } = await api.post('/v1/embeddings', {
    model: 'encoder',
    input: ['a b', 'b'],
    encoding_format: 'float',
  })
  const [u, v] = vectors.data.map((one: { embedding: number[] }) => one.embedding)
  const dot = (x: number[], y: number[]) => x.reduce((sum, a, i) => sum + a * y[i]!, 0)
  expect(body.reward).toBeCloseTo(dot(u, v) / Math.sqrt(dot(u, u) * dot(v, v)), 5)
  expect(body.metadata.sampled_model_name).toBe('encoder')
})

/** Of nine words against ten: seven are shared, six of them as one run, and the seventh stands before it, not behind. */
const SHARED = { bleu: (7 / 9) * (5 / 8) * (4 / 7) * (3 / 6), precision: 7 / 9, recall: 7 / 10 }
test.each([
  // 26 characters of 40 and of 51 are one run.
  ['fuzzy_match', (2 * 26) / (40 + 51)],
  ['bleu', Math.exp(1 - 10 / 9) * SHARED.bleu ** (1 / 4)],
  ['gleu', (7 + 5 + 4 + 3) / (10 + 9 + 8 + 7)],
  [
    'meteor',
    ((1 - 0.5 * (2 / 7) ** 3) * SHARED.precision * SHARED.recall) /
      (0.9 * SHARED.precision + 0.1 * SHARED.recall),
  ],
  ['rouge_1', (2 * 7) / (9 + 10)],
  ['rouge_2', (2 * 5) / (8 + 9)],
  ['rouge_3', (2 * 4) / (7 + 8)],
  ['rouge_4', (2 * 3) / (6 + 7)],
  ['rouge_5', (2 * 2) / (5 + 6)],
  ['rouge_l', (2 * 6) / (9 + 10)],
])(
  '%s: the same text is alike, another order less so, another text hardly',
  async (evaluation_metric, expected) => {
    const alike = {
      type: 'text_similarity',
      name: 'alike',
      input: '{{sample.output_text}}',
      reference: '{{item.label}}',
      evaluation_metric,
    }
    const label = 'the new card comes by post within five working days'
    const reward = async (text: string) => (await run(alike, { label }, text)).body.reward
    const [same, turned, other] = [
      await reward(label),
      await reward('within a week the new card comes by post'),
      await reward('QQQ ZZZ'),
    ]
    // METEOR takes a little off for each stretch of words, be it one.
    expect(same).toBeGreaterThan(0.999)
    expect(turned).toBeCloseTo(expected, 10)
    expect(other).toBeLessThan(0.2)
  },
)

test('the label that a model names decides, and an answer without one is a flag', async () => {
  const judge = (labels: string[], passing_labels: string[]) => ({
    type: 'label_model',
    name: 'judge',
    model: 'tiny',
    input: [{ role: 'user', content: 'A? {{sample.output_text}}' }],
    labels,
    passing_labels,
  })
  // What random weights say is the label that they choose.
  const { body: said } = await api.post('/v1/chat/completions', {
    model: 'tiny',
    messages: [{ role: 'user', content: 'A? b' }],
    temperature: 0,
    max_tokens: 64,
  })
  const chosen: string = said.choices[0].message.content
  const { body } = await run(judge([chosen, 'none of it'], [chosen]), {}, 'b')
  expect([body.reward, body.metadata.sampled_model_name]).toEqual([1, 'tiny'])
  const { body: other } = await run(judge([chosen, 'none of it'], ['none of it']), {}, 'b')
  expect([other.reward, other.metadata.errors.model_grader_parse_error]).toEqual([0, false])
  const { body: neither } = await run(judge(['none of it'], ['none of it']), {}, 'b')
  expect([neither.reward, neither.metadata.errors.model_grader_parse_error]).toEqual([0, true])
})

test('a template that becomes too long is a flag, and the server goes on', async () => {
  const input = '{{item.text}}'.repeat(2000)
  const { status, body } = await run(check({ input }), { label: 'a', text: 'x'.repeat(1000) }, 'a')
  expect([status, body.reward]).toEqual([200, 0])
  expect(body.metadata.errors.details).toMatch(/longer than 1000000 characters/)
  expect((await run(check(), { label: 'a' }, 'a')).body.reward).toBe(1)
})

test('a row that lacks what a placeholder names is a flag, not an error', async () => {
  const { status, body } = await run(check(), {}, 'card')
  expect(status).toBe(200)
  expect(body.reward).toBe(0)
  expect(body.metadata.errors).toMatchObject({
    invalid_variable_error: true,
    details: 'There is no `item.label` in this row.',
  })
})

test.each([
  [
    { type: 'python', name: 'p', source: 'def grade(sample, item): return 1' },
    'unsupported_grader',
    'grader',
  ],
  [check({ input: '{{ item[0]() }}' }), 'invalid_template', 'grader.input'],
  [check({ operation: 'regex' }), 'invalid_value', 'grader.operation'],
  [check({ refernce: 'a' }), 'unknown_parameter', 'grader.refernce'],
  [
    { type: 'javascript', name: 'j', source: 'function grade( {' },
    'invalid_grader',
    'grader.source',
  ],
  [
    { type: 'multi', name: 'm', graders: { a: check() }, calculate_output: 'a + b' },
    'invalid_grader',
    'grader.calculate_output',
  ],
])('%j is refused', async (grader, code, param) => {
  for (const url of ['run', 'validate']) {
    const { status, body } = await api.post(`/v1/fine_tuning/alpha/graders/${url}`, {
      grader,
      model_sample: 'a',
    })
    expect(status).toBe(400)
    expect(body.error).toMatchObject({ code, param })
    // What to use instead.
    if (code === 'unsupported_grader') expect(body.error.message).toContain('javascript')
  }
})

test('a grader that may run is given back as it was sent', async () => {
  const { body } = await api.post('/v1/fine_tuning/alpha/graders/validate', { grader: check() })
  expect(body).toEqual({ grader: check() })
})

const script = (body: string) => ({
  type: 'javascript',
  name: 'bad',
  source: `function grade(sample, item) { ${body} }`,
})
test.each([
  ['never ends', 'while (true) {}', /longer than 2000 ms/],
  [
    'allocates without end',
    'const a = []; while (true) a.push(new Uint8Array(1 << 20))',
    /more memory than its 64 MB/,
  ],
  ['looks for the host', 'return process.exit(1)', /'process' is not defined/],
])('a script that %s fails, and the server goes on', async (_, body, message) => {
  const answer = await run(script(body), {}, 'a')
  expect(answer.body.metadata.errors).toMatchObject({
    python_grader_runtime_error: true,
    python_grader_runtime_error_details: expect.stringMatching(message),
  })
  expect((await run(check(), { label: 'a' }, 'a')).body.reward).toBe(1)
})

test('the thread itself is ended where one row takes it too long, and the next one has a new thread', async () => {
  await using grading = new Grading({ limit_ms: 4000 })
  const schema = { type: 'object', properties: { a: { type: 'string', pattern: '^(a+)+$' } } }
  const row = { item: { a: `${'a'.repeat(60)}b` } }
  await expect(grading.badItem([row], schema)).rejects.toThrow('took longer than 4 s')
  expect(await grading.badItem([{ item: { a: 'aa' } }], schema)).toBeUndefined()
})
