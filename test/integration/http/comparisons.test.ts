// Runs beside each other over HTTP: those that there are, and those that are started for it.

import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Worker } from '../../../src/service/work/worker.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { suiteFolder } from '../../support/temporary.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

const folder = suiteFolder()
let api: TestApi
let worker: Worker
beforeAll(async () => {
  const models = join(folder, 'models')
  await mkdir(models)
  await writeTinyModel(join(models, 'tiny'), { chat: true })
  api = await openTestApi({ models })
  worker = api.startEvaluating()
})
afterAll(async () => {
  await worker?.stop()
  await api?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

const alike = {
  type: 'text_similarity',
  name: 'alike',
  input: '{{sample.output_text}}',
  reference: '{{item.label}}',
  evaluation_metric: 'fuzzy_match',
  pass_threshold: 0.9,
}

async function createEval(): Promise<string> {
  const { status, body } = await api.post('/v1/evals', {
    data_source_config: { type: 'custom', item_schema: { type: 'object' } },
    testing_criteria: [alike],
  })
  expect(status, JSON.stringify(body)).toBe(201)
  return body.id
}

/** A run of rows that bring their samples. */
async function runOf(eval_id: string, rows: { item: object; output_text: string }[]) {
  const { status, body } = await api.post(`/v1/evals/${eval_id}/runs`, {
    data_source: {
      type: 'jsonl',
      source: {
        type: 'file_content',
        content: rows.map(({ item, output_text }) => ({ item, sample: { output_text } })),
      },
    },
  })
  expect(status, JSON.stringify(body)).toBe(201)
  return body.id as string
}

async function create(eval_id: string, request: object) {
  const { status, body } = await api.post(`/v1/evals/${eval_id}/comparisons`, request)
  expect(status, JSON.stringify(body)).toBe(201)
  return body
}

async function ended(eval_id: string, id: string) {
  for (let i = 0; i < 2400; i++) {
    const { body } = await api.get(`/v1/evals/${eval_id}/comparisons/${id}`)
    if (body.status !== 'in_progress') return body
    await sleep(50)
  }
  throw new Error(`The comparison ${id} has not ended.`)
}

/** 24 rows in two groups, and six in none; every row is answered rightly where `right` says so. */
const answers = (right: (i: number) => boolean) =>
  Array.from({ length: 30 }, (_, i) => ({
    item: { label: `label ${i}`, ...(i < 24 && { of: { kind: i < 12 ? 'a' : 'b' } }) },
    output_text: right(i) ? `label ${i}` : 'nothing',
  }))

test('runs that there are: rates, tests on the same rows, groups, and the same figures every time', async () => {
  const eval_id = await createEval()
  // The rows come in another order: they are paired by what they are.
  const weak = await runOf(eval_id, answers((i) => i % 3 === 0).toReversed())
  const strong = await runOf(
    eval_id,
    answers((i) => i !== 13 && i !== 14),
  )
  const request = {
    name: 'weak and strong',
    runs: [{ run_id: weak, label: 'weak' }, { run_id: strong }],
    groups: ['of.kind'],
  }
  const created = await create(eval_id, request)
  const one = await ended(eval_id, created.id)
  expect(one).toMatchObject({
    object: 'eval.comparison',
    status: 'completed',
    name: 'weak and strong',
    runs: [
      { run_id: weak, label: 'weak', status: 'completed', rows: 30, rows_done: 30 },
      { run_id: strong, status: 'completed' },
    ],
    report: {
      results: [
        { run_id: weak, rows: 30, errored: 0, pass_rate: { value: 1 / 3 } },
        { run_id: strong, pass_rate: { value: 28 / 30 } },
      ],
      groups: [
        {
          field: 'of.kind',
          left_out: 0,
          worst: [
            // Of the two that have ten rows and the same rate, the one that comes first.
            { run_id: weak, value: 'a', rows: 12 },
            { run_id: strong, value: 'b', rows: 12, pass_rate: { value: 10 / 12 } },
          ],
        },
      ],
      warnings: ["6 rows do not have the field 'of.kind'; they are a group."],
    },
  })
  const [test_] = one.report.tests
  expect(test_).toMatchObject({ runs: [weak, strong], rows: 30, passes: { only_first: 0 } })
  expect(test_.passes.only_second).toBe(18)
  expect(test_.passes.p_value).toBeCloseTo(2 / 2 ** 18, 10)
  expect(test_.criteria[0].score.p_value).toBeLessThan(0.001)
  for (const { value, low, high } of [
    one.report.results[0].pass_rate,
    one.report.results[0].criteria[0].score,
    test_.passes.difference,
    test_.criteria[0].score.difference,
  ]) {
    expect(low).toBeLessThan(value - 0.1)
    expect(high).toBeGreaterThan(value + 0.1)
  }
  expect(one.report.groups[0].groups.map((g: { value: string | null }) => g.value)).toEqual([
    'a',
    'b',
    null,
  ])
  expect(one.report.text).toContain('| weak | 30 | 33.3 % (19.2 … 51.2) |')

  const again = await ended(eval_id, (await create(eval_id, request)).id)
  expect(again.report).toEqual(one.report)

  // The report outlives its runs.
  await api.delete(`/v1/evals/${eval_id}/runs/${weak}`)
  const later = await ended(eval_id, created.id)
  expect(later.report).toEqual(one.report)
  expect(later.runs[0].status).toBe('deleted')
  const { body: list } = await api.get(`/v1/evals/${eval_id}/comparisons?limit=1&order=desc`)
  expect(list).toMatchObject({ has_more: true, data: [{ id: again.id }] })
})

const data_source = {
  type: 'completions',
  input_messages: { type: 'template', template: [{ role: 'user', content: 'Say {{item.label}}' }] },
  sampling_params: { temperature: 0, max_completion_tokens: 4, seed: 1 },
  source: {
    type: 'file_content',
    content: Array.from({ length: 12 }, (_, i) => ({ item: { label: `cat ${i}` } })),
  },
}

test('runs that are missing are started, and those that there are taken again', async () => {
  const rows = Array.from({ length: 40 }, (_, i) =>
    JSON.stringify({ text: `text ${i}`, label: `label${i % 4}` }),
  )
  const file_id = await api.upload(rows.join('\n'))
  const eval_id = await createEval()
  const few_shot = { file_id, examples: 'auto', max_prompt_tokens: 60 }
  const request = {
    runs: [{ model: 'tiny' }, { model: 'tiny', few_shot }],
    data_source,
  }
  const created = await create(eval_id, request)
  expect(created.runs.map((run: { label: string }) => run.label)).toEqual([
    'tiny',
    'tiny, few-shot (auto)',
  ])
  const one = await ended(eval_id, created.id)
  expect(one.status, JSON.stringify(one.error)).toBe('completed')
  expect(one.report.results[0]).toMatchObject({ rows: 12, examples: 0 })
  expect(one.report.results[1].examples).toBeGreaterThan(0)
  expect(one.report.results[1].prompt_tokens).toBeLessThanOrEqual(60)

  const again = await create(eval_id, request)
  expect(again).toMatchObject({ status: 'completed', runs: created.runs.map(idOf) })
  expect(again.report).toEqual(one.report)
  // Without rows: those of the newest run; asked otherwise, another run.
  const { runs } = await create(eval_id, {
    runs: [{ model: 'tiny' }, { run_id: created.runs[1].run_id }],
  })
  expect(runs.map(idOf)).toEqual(created.runs.map(idOf))
  const warmer = { ...data_source, sampling_params: { ...data_source.sampling_params, seed: 2 } }
  const other = await create(eval_id, { ...request, data_source: warmer })
  expect(other.runs[0].run_id).not.toBe(created.runs[0].run_id)
  await ended(eval_id, other.id)
})

const idOf = ({ run_id }: { run_id: string }) => ({ run_id })

test('a run that goes wrong fails the comparison, and says which', async () => {
  const eval_id = await createEval()
  const good = await runOf(
    eval_id,
    answers(() => true),
  )
  const long = { ...data_source, sampling_params: { max_completion_tokens: 60 } }
  const { id, runs } = await create(eval_id, {
    runs: [{ run_id: good }, { model: 'tiny' }],
    data_source: long,
  })
  await api.post(`/v1/evals/${eval_id}/runs/${runs[1].run_id}`)
  const one = await ended(eval_id, id)
  expect(one).toMatchObject({ status: 'failed', report: null, error: { code: 'run_canceled' } })
  expect(one.error.message).toContain(runs[1].run_id)
  // One that went wrong is not taken again.
  const again = await create(eval_id, {
    runs: [{ run_id: good }, { model: 'tiny' }],
    data_source: long,
  })
  expect(again.runs[1].run_id).not.toBe(runs[1].run_id)
  await ended(eval_id, again.id)
})

test('a comparison that names what is not there starts nothing', async () => {
  const eval_id = await createEval()
  const other = await runOf(
    await createEval(),
    answers(() => true),
  )
  const own = await runOf(
    eval_id,
    answers(() => true),
  )
  const refused = async (request: object) => {
    const { status, body } = await api.post(`/v1/evals/${eval_id}/comparisons`, request)
    return [status, body.error?.code, body.error?.param]
  }
  const two = { data_source, runs: [{ model: 'tiny' }, { model: 'tiny' }] }
  expect(await refused({ runs: [{ run_id: own }] })).toEqual([400, 'invalid_value', 'runs'])
  expect(await refused({ runs: [{ run_id: own }, { run_id: own }] })).toEqual([
    400,
    'invalid_value',
    'runs',
  ])
  expect(await refused({ runs: [{ run_id: own }, { run_id: other }] })).toEqual([
    400,
    'invalid_value',
    'runs[1].run_id',
  ])
  expect(await refused({ runs: two.runs })).toEqual([
    400,
    'missing_required_parameter',
    'data_source',
  ])
  expect(await refused({ ...two, runs: [{ model: 'tiny' }, { model: 'none' }] })).toEqual([
    404,
    'model_not_found',
    'model',
  ])
  const few_shot = { file_id: 'file-none', examples: 2 }
  expect(await refused({ ...two, runs: [{ model: 'tiny' }, { model: 'tiny', few_shot }] })).toEqual(
    [400, 'invalid_file', 'runs[1].few_shot.file_id'],
  )
  expect(await refused({ ...two, tuned_model: 'tiny' })).toEqual([
    400,
    'invalid_value',
    'tuned_model',
  ])
  expect(await refused({ ...two, groups: ['a\u0000'] })).toEqual([
    400,
    'invalid_value',
    'groups[0]',
  ])
  const { body } = await api.get(`/v1/evals/${eval_id}/runs`)
  expect(body.data).toHaveLength(1)
  expect((await api.get(`/v1/evals/${eval_id}/comparisons/evalcmp_none`)).status).toBe(404)
})

test('a job names an eval that can be run at its checkpoints, or is refused', async () => {
  const training_file = await api.upload('{"text":"a","label":"x"}\n{"text":"b","label":"y"}\n')
  const refused = async (more: object) => {
    const { status, body } = await api.post('/v1/fine_tuning/jobs', {
      model: 'tiny',
      training_file,
      ...more,
    })
    return [status, body.error?.code, body.error?.param]
  }
  const stops = (type: string) => ({
    method: {
      type,
      [type]: { hyperparameters: { early_stopping: { metric: 'eval_score' } } },
    },
  })
  const eval_id = await createEval()
  const named = { luthier: { publish: { eval: eval_id } } }
  const none = { luthier: { publish: { eval: 'eval_none' } } }
  const where = 'luthier.publish.eval'
  expect(await refused(none)).toEqual([400, 'invalid_eval', where])
  const item = { label: 'of this test alone' }
  const own = { ...data_source, source: { type: 'file_content', content: [{ item }] } }
  // Nothing says yet which rows it is to go over, and how they are asked.
  expect(await refused(named)).toEqual([400, 'invalid_eval', where])
  const { id } = await create(eval_id, {
    runs: [{ model: 'tiny' }, { model: 'tiny' }],
    data_source: own,
  })
  expect(await refused({ ...named, ...stops('embedding') })).toEqual([
    400,
    'unsupported_value',
    where,
  ])
  expect(await refused(stops('supervised'))).toEqual([
    400,
    'invalid_value',
    'method.supervised.hyperparameters.early_stopping.metric',
  ])
  const { status, body } = await api.post('/v1/fine_tuning/jobs', {
    model: 'tiny',
    training_file,
    ...named,
    ...stops('supervised'),
  })
  expect(status).toBe(200)
  expect(body.luthier).toEqual(named.luthier)
  // Its rows stay while it may need them, and go with it.
  await ended(eval_id, id)
  const stored = await api.stored()
  await api.delete(`/v1/evals/${eval_id}`)
  expect(await api.stored()).toEqual(stored)
  await api.post(`/v1/fine_tuning/jobs/${body.id}/cancel`)
  expect((await api.stored()).length).toBe(stored.length - 1)
})
