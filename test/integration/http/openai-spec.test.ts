// Every implemented operation that OpenAI describes answers once as it is described; the check itself has teeth.

import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { checkReply, fieldsOf, operationOf } from '../../support/openai-spec.ts'
import { shared } from '../../support/shared.ts'
import { suiteFolder } from '../../support/temporary.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

interface Fields {
  properties: Record<string, unknown>
}

interface Described {
  parameters?: { in: string; name: string }[]
  requestBody?: { content: Record<string, { schema: { $ref?: string } }> }
}

const spec = shared('spec/openai.yaml')

/** Operations under /v1 that are ours alone. */
const OURS = new Set([
  'post /v1/classifications',
  // OpenAI's, but the part of the description that lies here lacks it.
  'post /v1/moderations',
  // As OpenAI's clients call it; its description has it without the last step.
  'post /v1/evals/{eval_id}/runs/{run_id}/cancel',
  ...['get', 'post'].map((method) => `${method} /v1/evals/{eval_id}/comparisons`),
  'get /v1/evals/{eval_id}/comparisons/{comparison_id}',
  ...['get', 'post'].map((method) => `${method} /v1/fine_tuning/alpha/merges`),
  'get /v1/fine_tuning/alpha/merges/{merge_id}',
  'get /v1/fine_tuning/alpha/merges/{merge_id}/events',
  'post /v1/fine_tuning/alpha/merges/{merge_id}/cancel',
  ...['get', 'post'].map((method) => `${method} /v1/fine_tuning/alpha/imports`),
  'get /v1/fine_tuning/alpha/imports/{import_id}',
  'get /v1/fine_tuning/alpha/imports/{import_id}/events',
  'post /v1/fine_tuning/alpha/imports/{import_id}/cancel',
  ...['get', 'post'].map((method) => `${method} /v1/fine_tuning/alpha/sweeps`),
  'get /v1/fine_tuning/alpha/sweeps/{sweep_id}',
  'get /v1/fine_tuning/alpha/sweeps/{sweep_id}/events',
  'post /v1/fine_tuning/alpha/sweeps/{sweep_id}/cancel',
  'get /v1/fine_tuning/jobs/{fine_tuning_job_id}/examples',
  'post /v1/fine_tuning/jobs/{fine_tuning_job_id}/examples/derive',
  'get /v1/fine_tuning/jobs/{fine_tuning_job_id}/preflight',
  'get /v1/models/{model}/lineage',
  'get /v1/models/{model}/provenance',
  'get /v1/models/{model}/weights',
  'get /v1/provenance/key',
  'get /v1/provenance/models',
  'get /v1/provenance/completions',
  'post /v1/fine_tuning/alpha/preflight',
])

describe.skipIf(spec.missing)('the API as OpenAI describes it', () => {
  const folder = suiteFolder()
  let api: TestApi
  beforeAll(async () => {
    const models = join(folder, 'models')
    await mkdir(models)
    await writeTinyModel(join(models, 'tiny'), {
      chat: true,
      config: { max_position_embeddings: 1024 },
    })
    await writeTinyEncoder(join(models, 'encoder'), { head: false })
    api = await openTestApi({ models })
  })
  afterAll(async () => {
    await api?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  test('every operation that is implemented answers with 200 as it is described', async () => {
    const rows = `${JSON.stringify({
      messages: [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
      ],
    })}\n`.repeat(12)
    const [file, other] = [await api.upload(rows), await api.upload(rows)]
    const { body: job } = await api.post('/v1/fine_tuning/jobs', {
      model: 'tiny',
      training_file: file,
      method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 2 } } },
      metadata: { a: 'b' },
    })
    const { body: second } = await api.post('/v1/fine_tuning/jobs', {
      model: 'tiny',
      training_file: file,
    })
    const chat = { model: 'tiny', messages: [{ role: 'user', content: 'a' }], max_tokens: 3 }
    const plain = { model: 'tiny', prompt: 'a', max_tokens: 3 }
    const jobs = `/v1/fine_tuning/jobs/${job.id}`
    const form = (field: string, fields: Record<string, string> = {}) => {
      const data = new FormData()
      for (const [name, value] of Object.entries(fields)) data.append(name, value)
      data.append(field, new Blob([rows]), 'rows.jsonl')
      return data
    }
    const upload = {
      filename: 'rows.jsonl',
      purpose: 'fine-tune',
      bytes: rows.length,
      mime_type: 'application/jsonl',
    }

    const seen = new Set(['post /fine_tuning/jobs'])
    async function ask(method: 'GET' | 'POST' | 'DELETE', url: string, payload?: object) {
      const headers = { authorization: `Bearer ${api.key}` }
      const reply = await api.app.inject({ method, url, headers, ...(payload && { payload }) })
      if ([200, 201].includes(reply.statusCode)) seen.add(operationOf(method, url) ?? '')
      return reply
    }
    await ask('GET', '/v1/files')
    await ask('POST', '/v1/files', form('file', { purpose: 'fine-tune' }))
    await ask('GET', `/v1/files/${file}`)
    await ask('DELETE', `/v1/files/${other}`)
    await ask('GET', '/v1/fine_tuning/jobs')
    await ask('GET', jobs)
    await ask('GET', `${jobs}/events`)
    await ask('GET', `${jobs}/checkpoints`)
    await ask('POST', `${jobs}/cancel`)
    await ask('POST', `/v1/fine_tuning/jobs/${second.id}/cancel`)
    await ask('GET', '/v1/models')
    await ask('GET', '/v1/models/tiny')
    await ask('POST', '/v1/chat/completions', { ...chat, logprobs: true, top_logprobs: 2, n: 2 })
    await ask('POST', '/v1/chat/completions', { ...chat, logprobs: true, stream: true })
    const { id } = (await ask('POST', '/v1/chat/completions', { ...chat, store: true })).json()
    await ask('GET', '/v1/chat/completions')
    const stored = `/v1/chat/completions/${id}`
    await ask('GET', stored)
    await ask('GET', `${stored}/messages`)
    await ask('POST', stored, { metadata: { a: 'b' } })
    await ask('DELETE', stored)
    await ask('GET', '/v1/chat/completions')
    const tools = [{ type: 'function', function: { name: 'f' } }]
    const called = { ...chat, tools, tool_choice: 'required', max_tokens: 60, temperature: 0 }
    for (const stream of [false, true]) {
      const { statusCode } = await ask('POST', '/v1/chat/completions', { ...called, stream })
      expect(statusCode).toBe(200)
    }
    const asked = { model: 'tiny', input: 'a', max_output_tokens: 16, top_logprobs: 1 }
    await ask('POST', '/v1/responses', { ...asked, stream: true })
    const answered = (await ask('POST', '/v1/responses', asked)).json()
    const responses = `/v1/responses/${answered.id}`
    const calling = {
      ...asked,
      max_output_tokens: 60,
      tools: [{ type: 'function', name: 'f' }],
      tool_choice: 'required',
      previous_response_id: answered.id,
      temperature: 0,
    }
    for (const stream of [false, true]) {
      const { statusCode, body } = await ask('POST', '/v1/responses', { ...calling, stream })
      expect(statusCode, body).toBe(200)
    }
    await ask('GET', responses)
    await ask('GET', `${responses}/input_items`)
    await ask('DELETE', responses)
    await ask('POST', '/v1/completions', { ...plain, logprobs: 2, echo: true })
    await ask('POST', '/v1/completions', { ...plain, logprobs: 2, echo: true, stream: true })
    await ask('POST', '/v1/embeddings', { model: 'encoder', input: ['a', 'b'] })
    const grader = {
      type: 'string_check',
      name: 'check',
      input: '{{sample.output_text}}',
      reference: 'a',
      operation: 'eq',
    }
    await ask('POST', '/v1/fine_tuning/alpha/graders/run', { grader, model_sample: 'a' })
    await ask('POST', '/v1/fine_tuning/alpha/graders/validate', { grader })
    const one = (
      await ask('POST', '/v1/evals', {
        data_source_config: { type: 'custom', item_schema: { type: 'object' } },
        testing_criteria: [grader],
      })
    ).json()
    const evals = `/v1/evals/${one.id}`
    await ask('POST', evals, { name: 'other', metadata: { a: 'b' } })
    await ask('GET', evals)
    const rows_of = { type: 'file_content', content: [{ item: {}, sample: { output_text: 'a' } }] }
    const run = (
      await ask('POST', `${evals}/runs`, { data_source: { type: 'jsonl', source: rows_of } })
    ).json()
    await ask('POST', `${evals}/runs/${run.id}`)
    await ask('DELETE', `${evals}/runs/${run.id}`)
    await ask('GET', `${evals}/runs`)
    await ask('DELETE', evals)
    await ask('GET', '/v1/evals')
    const batch = (
      await ask('POST', '/v1/batches', {
        input_file_id: await api.upload('{}', { purpose: 'batch' }),
        endpoint: '/v1/completions',
        completion_window: '24h',
      })
    ).json()
    await ask('GET', '/v1/batches')
    await ask('GET', `/v1/batches/${batch.id}`)
    await ask('POST', `/v1/batches/${batch.id}/cancel`)
    const begun = (await ask('POST', '/v1/uploads', upload)).json()
    const part = (await ask('POST', `/v1/uploads/${begun.id}/parts`, form('data'))).json()
    await ask('POST', `/v1/uploads/${begun.id}/complete`, { part_ids: [part.id] })
    const given = (await ask('POST', '/v1/uploads', upload)).json()
    await ask('POST', `/v1/uploads/${given.id}/cancel`)

    const document = api.app.swagger() as unknown as { paths: Record<string, object> }
    const implemented = Object.entries(document.paths)
      .filter(([path]) => path.startsWith('/v1/'))
      .flatMap(([path, item]) => Object.keys(item).map((method) => [method, path] as const))
      .filter(([method, path]) => !OURS.has(`${method} ${path}`))
    const missing = implemented.filter(([method, path]) => {
      const operation = operationOf(method, path.replace(/\{\w+\}/g, 'x'))
      return !operation || !seen.has(operation)
    })
    // These need a tuned model or a running job, or answer with bytes. Their own tests go through the same check.
    expect(missing.map((pair) => pair.join(' ')).toSorted()).toEqual([
      'delete /v1/models/{model}',
      'get /v1/evals/{eval_id}/runs/{run_id}',
      'get /v1/evals/{eval_id}/runs/{run_id}/output_items',
      'get /v1/evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}',
      'get /v1/files/{file_id}/content',
      'post /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause',
      'post /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume',
    ])
  })

  test('every field of a request that OpenAI describes is one that the server knows', async () => {
    const document = api.app.swagger() as unknown as {
      paths: Record<string, Record<string, Described>>
      components: { schemas: Record<string, object> }
    }
    const known = ({ requestBody, parameters = [] }: Described) => {
      const media = requestBody?.content['application/json']?.schema
      const name = media?.$ref?.split('/').at(-1)
      const schema = name === undefined ? media : document.components.schemas[name]
      const query = parameters.filter((one) => one.in === 'query').map(({ name }) => name)
      // Unions name their fields in their branches.
      return { open: schema && !('properties' in schema), schema, query }
    }
    const missing = Object.entries(document.paths)
      .filter(([path]) => path.startsWith('/v1/'))
      .flatMap(([path, item]) =>
        Object.entries(item).flatMap(([method, operation]) => {
          const { body, query } = fieldsOf(method, path.replace(/\{\w+\}/g, 'x'))
          const ours = known(operation)
          const fields = ours.schema && !ours.open ? (ours.schema as Fields).properties : undefined
          return [
            ...body.filter((name) => fields && !Object.hasOwn(fields, name)),
            ...query.filter((name) => !ours.query.includes(name)).map((name) => `?${name}`),
          ].map((name) => `${method} ${path}: ${name}`)
        }),
      )
    // It comes as `metadata[key]`, which no list of names shows.
    expect(missing).toEqual(['get /v1/chat/completions: ?metadata'])
  })

  test.each([
    ['a field is missing', { object: 'list' }],
    ['a field has another type', { object: 'list', data: 'none' }],
    ['a constant is another', { object: 'page', data: [] }],
  ])('a reply is refused where %s', (_, body) => {
    const reply = { method: 'GET', url: '/v1/models', status: 200, type: 'application/json' }
    expect(() => checkReply(reply, { object: 'list', data: [] })).not.toThrow()
    expect(() => checkReply(reply, body)).toThrow(/not as OpenAI describes it/)
    expect(() => checkReply({ ...reply, status: 404 }, body)).toThrow(/not as OpenAI describes it/)
  })
})
