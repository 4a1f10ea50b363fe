// Every route of the API's description × everyone who may not see a project's rows.

import { Readable } from 'node:stream'
import type { InjectOptions } from 'fastify'
import { afterAll, beforeAll, expect, test } from 'vitest'
import description from '../../../openapi/openapi.json' with { type: 'json' }
import { newKey } from '../../../src/service/auth/keys.ts'
import { insertCheckpoint } from '../../../src/service/db/fine-tuning-checkpoints.ts'
import { insertImport } from '../../../src/service/db/imports.ts'
import { listKeys, revokeKey } from '../../../src/service/db/keys.ts'
import { insertMerge } from '../../../src/service/db/merges.ts'
import { insertModel } from '../../../src/service/db/models.ts'
import { upsertObject } from '../../../src/service/db/objects.ts'
import { insertWork } from '../../../src/service/db/work.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { bearer } from '../../support/service.ts'

interface Operation {
  operationId: string
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  path: string
  takesBody: boolean
}

const operations: Operation[] = Object.entries(description.paths)
  .filter(([path]) => path.startsWith('/v1/'))
  .flatMap(([path, methods]) =>
    Object.entries(methods as Record<string, { operationId: string; requestBody?: object }>).map(
      ([method, { operationId, requestBody }]) => ({
        operationId,
        method: method.toUpperCase() as Operation['method'],
        path,
        takesBody: requestBody !== undefined,
      }),
    ),
  )

/** What the owner has: its ids are what nobody else may ever read. */
const owned = {
  file: '',
  job: '',
  model: '',
  checkpoint: '',
  checkpoint_model: '',
  event: '',
  upload: '',
  part: '',
  sweep: '',
  merge: '',
  batch: '',
  batch_input: '',
  import: '',
  eval: '',
  run: '',
  other_run: '',
  item: '',
  comparison: '',
  response: '',
  completion: '',
}

/** A value of each parameter that stands in a path; a new one is added here. */
const parameters: Record<string, () => string> = {
  file_id: () => owned.file,
  fine_tuning_job_id: () => owned.job,
  model: () => owned.model,
  upload_id: () => owned.upload,
  sweep_id: () => owned.sweep,
  merge_id: () => owned.merge,
  batch_id: () => owned.batch,
  import_id: () => owned.import,
  eval_id: () => owned.eval,
  run_id: () => owned.run,
  output_item_id: () => owned.item,
  comparison_id: () => owned.comparison,
  response_id: () => owned.response,
  completion_id: () => owned.completion,
}

const form = (...fields: string[]) => ({
  headers: { 'content-type': 'multipart/form-data; boundary=cut' },
  payload: [...fields.flatMap((field) => ['--cut', field]), '--cut--', ''].join('\r\n'),
})

const check = {
  type: 'string_check',
  name: 'check',
  input: '{{sample.output_text}}',
  reference: 'x',
  operation: 'eq',
}

const anEval = {
  data_source_config: { type: 'custom', item_schema: { type: 'object' } },
  testing_criteria: [check],
}
const rows = { type: 'file_content', content: [{ item: { of: 'the owner' } }] }
const aResponse = {
  object: 'response',
  created_at: 1,
  error: null,
  incomplete_details: null,
  instructions: 'of the owner',
  model: 'tiny',
  output: [],
  parallel_tool_calls: true,
  tools: [],
  tool_choice: 'auto',
  metadata: {},
  temperature: 1,
  top_p: 1,
}
const aCompletion = {
  object: 'chat.completion',
  created: 1,
  model: 'tiny',
  choices: [
    {
      index: 0,
      message: { role: 'assistant', content: 'of the owner', refusal: null },
      logprobs: null,
      finish_reason: 'stop',
    },
  ],
}
const said = [{ type: 'input_text', text: 'of the owner' }]
const aSample = {
  input: [],
  output: [],
  finish_reason: 'stop',
  model: '',
  usage: { total_tokens: 0, completion_tokens: 0, prompt_tokens: 0, cached_tokens: 0 },
  error: null,
  temperature: 1,
  max_completion_tokens: 1,
  top_p: 1,
  seed: 1,
}
const aMerge = {
  merge_method: 'linear',
  models: [{ model: 'tiny', parameters: { weight: 1 } }],
}
const aBatch = () => ({
  input_file_id: owned.batch_input,
  endpoint: '/v1/completions',
  completion_window: '24h',
  metadata: { secret: 'of the owner' },
})
const aRun = { data_source: { type: 'jsonl', source: rows } }

/** A body for each operation that takes one, naming the owner's rows where it can. */
const bodies: Record<string, () => Pick<InjectOptions, 'payload' | 'headers'>> = {
  createFile: () =>
    form(
      'content-disposition: form-data; name="purpose"\r\n\r\nfine-tune',
      'content-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"prompt":"a","completion":"b"}',
    ),
  createUpload: () => ({
    payload: { filename: 'a.jsonl', purpose: 'fine-tune', bytes: 4, mime_type: 'text/plain' },
  }),
  addUploadPart: () =>
    form('content-disposition: form-data; name="data"; filename="part"\r\n\r\nnull'),
  completeUpload: () => ({ payload: { part_ids: [owned.part] } }),
  createFineTuningJob: () => ({ payload: { model: 'tiny', training_file: owned.file } }),
  preflightFineTuningJob: () => ({ payload: { model: 'tiny', training_file: owned.file } }),
  runGrader: () => ({ payload: { grader: check, item: {}, model_sample: 'x' } }),
  createEval: () => ({ payload: anEval }),
  updateEval: () => ({ payload: { name: 'other' } }),
  createEvalRun: () => ({ payload: aRun }),
  createEvalComparison: () => ({
    payload: { runs: [{ run_id: owned.run }, { run_id: owned.other_run }] },
  }),
  validateGrader: () => ({ payload: { grader: check } }),
  createFineTuningSweep: () => ({
    payload: {
      job: {
        model: 'tiny',
        training_file: owned.file,
        luthier: { data: { validation_split: 0.2 } },
      },
      search: { rank: { values: [4, 8] } },
    },
  }),
  deriveFineTuningFile: () => ({ payload: { lines: [1] } }),
  createBatch: () => ({ payload: aBatch() }),
  createFineTuningMerge: () => ({ payload: { config: aMerge } }),
  createFineTuningImport: () => ({ payload: { files: [owned.file] } }),
  createChatCompletion: () => ({
    payload: { model: owned.model, messages: [{ role: 'user', content: 'x' }] },
  }),
  updateChatCompletion: () => ({ payload: { metadata: { a: 'b' } } }),
  createResponse: () => ({
    payload: { model: owned.model, previous_response_id: owned.response, input: 'x' },
  }),
  createCompletion: () => ({ payload: { model: owned.checkpoint_model, prompt: 'x' } }),
  createEmbedding: () => ({ payload: { model: owned.model, input: 'x' } }),
  createModeration: () => ({ payload: { model: owned.model, input: 'x' } }),
  createClassification: () => ({ payload: { model: owned.model, input: 'x' } }),
}

let service: TestApi
const callers: Record<string, () => Promise<Record<string, string>>> = {
  'no key': async () => ({}),
  'a wrong key': async () => bearer(newKey()),
  'the key of another project': async () =>
    bearer(await service.keyOf('admin', await service.anotherProject())),
  'a revoked key': async () => {
    const key = await service.keyOf('admin')
    const newest = (await listKeys(service.db, service.caller.organization_id)).at(-1)!
    await revokeKey(service.db, service.project_id, newest.id)
    return bearer(key)
  },
}

beforeAll(async () => {
  service = await openTestApi()
  const { db, project_id } = service
  owned.file = await service.upload('{"prompt":"a","completion":"b"}\n'.repeat(10))
  const { body: upload } = await service.post('/v1/uploads', {
    filename: 'a.txt',
    purpose: 'user_data',
    bytes: 4,
    mime_type: 'text/plain',
  })
  owned.upload = upload.id
  const staged = await service.store.stage(Readable.from([Buffer.from('null')]))
  owned.part = (await service.uploads.addPart(project_id, upload.id, staged)).id
  const { body: job } = await service.post('/v1/fine_tuning/jobs', {
    model: 'tiny',
    training_file: owned.file,
    metadata: { secret: 'of the owner' },
  })
  owned.job = job.id
  await db.query("update fine_tuning_jobs set preflight = '{}' where id = $1", [job.id])
  const { body: events } = await service.get(`/v1/fine_tuning/jobs/${job.id}/events`)
  owned.event = events.data[0].id
  const { body: sweep } = await service.post('/v1/fine_tuning/alpha/sweeps', {
    ...(bodies.createFineTuningSweep!().payload as object),
  })
  owned.sweep = sweep.id
  owned.merge = 'ftmerge-owned'
  await insertWork(db, { id: owned.merge, kind: 'merge', project_id })
  await insertMerge(db, {
    id: owned.merge,
    project_id,
    organization_id: service.caller.organization_id,
    config: aMerge,
    parents: ['tiny'],
    user_provided_suffix: null,
    metadata: { secret: 'of the owner' },
    tensors: 1,
    bytes: 1,
    model_name: 'ft:tiny:luthier:merged:AAAAAAAA',
    eval: null,
    eval_items_sha256: null,
  })
  owned.batch_input = await service.upload('{}', { purpose: 'batch' })
  owned.batch = (await service.post('/v1/batches', aBatch())).body.id
  owned.import = 'ftimport-owned'
  await insertWork(db, { id: owned.import, kind: 'import', project_id })
  await insertImport(db, {
    id: owned.import,
    project_id,
    organization_id: service.caller.organization_id,
    received: [{ source: owned.file, filename: 'a.tar', sha256: 'a', bytes: 1 }],
    base_model: null,
    user_provided_suffix: null,
    metadata: { secret: 'of the owner' },
  })
  owned.eval = (await service.post('/v1/evals', anEval)).body.id
  owned.run = (await service.post(`/v1/evals/${owned.eval}/runs`, aRun)).body.id
  owned.other_run = (await service.post(`/v1/evals/${owned.eval}/runs`, aRun)).body.id
  owned.comparison = (
    await service.post(`/v1/evals/${owned.eval}/comparisons`, {
      ...(bodies.createEvalComparison!().payload as object),
    })
  ).body.id
  owned.item = 'outputitem_owned'
  await service.db.query(
    `insert into eval_output_items (id, run_id, datasource_item_id, status, datasource_item, results, sample)
     values ($1, $2, 0, 'pass', '{}', '[]', $3)`,
    [owned.item, owned.run, JSON.stringify(aSample)],
  )
  owned.response = 'resp_owned'
  await service.db.query(
    'insert into responses (id, project_id, response, input) values ($1, $2, $3, $4)',
    [
      owned.response,
      project_id,
      JSON.stringify({ ...aResponse, id: owned.response }),
      JSON.stringify([
        { id: 'msg_1', type: 'message', status: 'completed', role: 'user', content: said },
      ]),
    ],
  )
  owned.completion = 'chatcmpl-owned'
  await service.db.query(
    `insert into chat_completions (id, project_id, model, metadata, completion, messages)
     values ($1, $2, 'tiny', '{}', $3, $4)`,
    [
      owned.completion,
      project_id,
      JSON.stringify({ ...aCompletion, id: owned.completion }),
      JSON.stringify([{ role: 'user', content: 'of the owner' }]),
    ],
  )
  const adapter = { sha256: 'a'.repeat(64), config_sha256: 'b'.repeat(64) }
  for (const sha256 of Object.values(adapter))
    await upsertObject(db, { project_id, sha256, bytes: 1 })
  owned.model = 'ft:tiny:luthier:owned:AAAAAAAA'
  owned.checkpoint_model = `${owned.model}:ckpt-step-1`
  owned.checkpoint = 'ftckpt_owned'
  await insertCheckpoint(db, {
    id: owned.checkpoint,
    project_id,
    job_id: job.id,
    step_number: 1,
    fine_tuned_model_checkpoint: owned.checkpoint_model,
    metrics: { step: 1 },
    made_by: 'epoch',
    adapter,
  })
  await insertModel(db, {
    id: owned.model,
    project_id,
    job_id: job.id,
    parent: 'tiny',
    root: 'tiny',
    adapter_sha256: adapter.sha256,
    adapter_config_sha256: adapter.config_sha256,
  })
})
afterAll(() => service?.[Symbol.asyncDispose]())

const ask = async (operation: Operation, headers: Record<string, string>) => {
  const url = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = parameters[name]
    if (!value)
      throw new Error(`The parameter ${name} of ${operation.path} is missing in this test.`)
    return encodeURIComponent(value())
  })
  const body = bodies[operation.operationId]?.()
  if (operation.takesBody && !body)
    throw new Error(`The body of ${operation.operationId} is missing in this test.`)
  const reply = await service.app.inject({
    method: operation.method,
    url,
    ...body,
    headers: { ...headers, ...body?.headers },
  })
  return { url, sent: `${url}${JSON.stringify(body?.payload) ?? ''}`, reply }
}

/** All rows of the owner's project, in every table that has projects. */
const rowsOfOwner = async () => {
  const { rows: tables } = await service.db.query<{ name: string }>(
    `select table_name as name from information_schema.columns
      where table_schema = 'public' and column_name = 'project_id' and table_name <> 'api_keys'
      order by 1`,
  )
  const found: Record<string, unknown[]> = {}
  for (const { name } of tables) {
    const { rows } = await service.db.query(
      `select to_jsonb(t) as row from ${name} t where project_id = $1 order by t::text`,
      [service.project_id],
    )
    found[name] = rows
  }
  return found
}

test('the committed description has every route of the server', () => {
  const routes = (paths: object) =>
    Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((m) => `${m} ${path}`),
    )
  const live = (service.app.swagger() as { paths: object }).paths
  expect(routes(live).sort()).toEqual(routes(description.paths).sort())
})

for (const [who, headersOf] of Object.entries(callers))
  test.each(operations)(`${who}: $method $path shows and changes nothing`, async (operation) => {
    const before = await rowsOfOwner()
    const { sent, reply } = await ask(operation, await headersOf())
    if (who !== 'the key of another project') {
      expect(reply.statusCode).toBe(401)
      expect(reply.json().error.code).toBe('invalid_api_key')
    } else if (
      sent.includes(encodeURIComponent(owned.file)) ||
      sent.includes(owned.batch_input) ||
      /owned|ftjob-|ftsweep-|upload_|eval_|evalrun_|batch_|evalcmp_|resp_|chatcmpl-/.test(sent)
    )
      expect([400, 404]).toContain(reply.statusCode)
    // What the caller sent may be said back; anything else of the owner may not.
    for (const id of Object.values(owned))
      if (!decodeURIComponent(sent).includes(id)) expect(reply.payload).not.toContain(id)
    expect(reply.payload).not.toContain('of the owner')
    expect(await rowsOfOwner()).toEqual(before)
  })

// Without this the tests above could pass because their requests are wrong. What deletes comes last.
const byHarm = operations.toSorted(
  (a, b) =>
    Number(a.method === 'DELETE') - Number(b.method === 'DELETE') ||
    // A run before its eval.
    (a.method === 'DELETE' ? b.path.length - a.path.length : 0),
)
test.each(byHarm)('the owner: $method $path is let in', async (operation) => {
  const { reply } = await ask(operation, bearer(service.key))
  expect([401, 403, 404]).not.toContain(reply.statusCode)
})
