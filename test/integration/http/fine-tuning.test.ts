import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { transaction } from '../../../src/service/db/pool.ts'
import { eventText } from '../../../src/service/jobs/event-texts.ts'
import { createJobs } from '../../../src/service/jobs/jobs.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'

let service: TestApi
let training_file = ''
let batch_file = ''
beforeAll(async () => {
  service = await openTestApi()
  training_file = await service.upload('{"prompt":"a","completion":"b"}\n'.repeat(10))
  batch_file = await service.upload('{}\n', { purpose: 'batch' })
})
afterAll(() => service?.[Symbol.asyncDispose]())

const create = (body: object) => service.post('/v1/fine_tuning/jobs', body)
const valid = () => ({ model: 'tiny', training_file })

test('a job is created with what the client left out filled in', async () => {
  const { status, body } = await create({ ...valid(), suffix: 'desk', metadata: { team: 'a' } })
  expect(status).toBe(200)
  expect(body).toEqual({
    object: 'fine_tuning.job',
    id: expect.stringMatching(/^ftjob-[0-9A-Za-z]{24}$/),
    model: 'tiny',
    created_at: expect.any(Number),
    finished_at: null,
    fine_tuned_model: null,
    organization_id: service.caller.organization_id,
    result_files: [],
    status: 'validating_files',
    validation_file: null,
    training_file,
    hyperparameters: { n_epochs: 'auto', batch_size: 'auto', learning_rate_multiplier: 'auto' },
    trained_tokens: null,
    error: null,
    user_provided_suffix: 'desk',
    seed: expect.any(Number),
    estimated_finish: null,
    integrations: [],
    method: {
      type: 'supervised',
      supervised: {
        hyperparameters: { n_epochs: 'auto', batch_size: 'auto', learning_rate_multiplier: 'auto' },
      },
    },
    metadata: { team: 'a' },
  })
  expect(Math.abs(body.created_at - Date.now() / 1000)).toBeLessThan(60)
  expect((await service.get(`/v1/fine_tuning/jobs/${body.id}`)).body).toEqual(body)
  const events = await service.get(`/v1/fine_tuning/jobs/${body.id}/events`)
  expect(events.body.data.map((event: { message: string }) => event.message)).toEqual([
    eventText.validating(training_file, null),
    eventText.created(body.id),
  ])
  expect(events.body.data[0]).toMatchObject({
    object: 'fine_tuning.job.event',
    id: expect.stringMatching(/^ftevent-/),
    level: 'info',
    type: 'message',
    data: {},
  })
})

test('hyperparameters are taken from both places, and the method wins', async () => {
  const { body } = await create({
    ...valid(),
    seed: 7,
    hyperparameters: { n_epochs: 2, batch_size: 4 },
    method: {
      type: 'supervised',
      supervised: { hyperparameters: { n_epochs: 3, lora: { rank: 4 }, learning_rate: 0.001 } },
    },
  })
  const hyperparameters = {
    n_epochs: 3,
    batch_size: 4,
    learning_rate_multiplier: 'auto',
    lora: { rank: 4 },
    learning_rate: 0.001,
  }
  expect(body).toMatchObject({ seed: 7, hyperparameters })
  expect(body.method).toEqual({ type: 'supervised', supervised: { hyperparameters } })
})

test('dpo takes its own hyperparameters beside the others', async () => {
  const { status, body } = await create({
    ...valid(),
    method: { type: 'dpo', dpo: { hyperparameters: { n_epochs: 2, lora: { use_dora: true } } } },
  })
  const hyperparameters = {
    n_epochs: 2,
    batch_size: 'auto',
    learning_rate_multiplier: 'auto',
    beta: 'auto',
    lora: { use_dora: true },
  }
  expect(status).toBe(200)
  expect(body.method).toEqual({ type: 'dpo', dpo: { hyperparameters } })
  const sent = { type: 'dpo', dpo: { hyperparameters: { beta: 0.5 } } }
  const other = await create({ ...valid(), method: sent })
  expect(other.body.method.dpo.hyperparameters.beta).toBe(0.5)
})

test('what was sent in luthier is kept and shown, and its file is held until the job ends', async () => {
  const reference_file = await service.upload('{"text":"in the wild"}\n', { purpose: 'user_data' })
  const luthier = {
    data: { validation_split: 0.2, groups: ['channel'], reference_file, strict: ['leakage'] },
    publish: { checkpoint: 'final', max_regression: 0.1 },
  }
  const early_stopping = { patience: 2, min_delta: 0.01, metric: 'valid_loss' }
  const { body: job } = await create({ ...valid(), luthier, ...nested({ early_stopping }) })
  expect(job).toMatchObject({
    luthier,
    method: { supervised: { hyperparameters: { early_stopping } } },
  })
  await service.delete(`/v1/files/${reference_file}`)
  expect((await service.get(`/v1/fine_tuning/jobs/${job.id}`)).body).toEqual(job)
  const held = `select o.sha256 from objects o join fine_tuning_jobs j
        on j.project_id = o.project_id and j.reference_sha256 = o.sha256 where j.id = $1`
  expect((await service.db.query(held, [job.id])).rows).toHaveLength(1)
  await service.post(`/v1/fine_tuning/jobs/${job.id}/cancel`)
  expect((await service.db.query(held, [job.id])).rows).toHaveLength(0)
})

test('null stands for what is left out', async () => {
  const { status } = await create({
    ...valid(),
    suffix: null,
    seed: null,
    validation_file: null,
    integrations: null,
    metadata: null,
    luthier: null,
  })
  expect(status).toBe(200)
})

const nested = (hyperparameters: object) => ({
  method: { type: 'supervised', supervised: { hyperparameters } },
})

test.each<[string, () => object, number, string, string | null]>([
  ['no model', () => ({ model: undefined }), 400, 'missing_required_parameter', 'model'],
  [
    'no file',
    () => ({ training_file: undefined }),
    400,
    'missing_required_parameter',
    'training_file',
  ],
  ['an unknown model', () => ({ model: 'gpt-nothing' }), 404, 'model_not_found', 'model'],
  [
    'an unknown file',
    () => ({ training_file: 'file-x' }),
    400,
    'invalid_training_file',
    'training_file',
  ],
  [
    'an unknown validation file',
    () => ({ validation_file: 'file-x' }),
    400,
    'invalid_validation_file',
    'validation_file',
  ],
  [
    'a file of another purpose',
    () => ({ training_file: batch_file }),
    400,
    'invalid_training_file',
    'training_file',
  ],
  ['an unknown field', () => ({ colour: 'red' }), 400, 'unknown_parameter', 'colour'],
  [
    'an unknown field far inside',
    () => nested({ rank: 4 }),
    400,
    'unknown_parameter',
    'method.supervised.hyperparameters.rank',
  ],
  [
    'an unknown field of lora',
    () => nested({ lora: { r: 4 } }),
    400,
    'unknown_parameter',
    'method.supervised.hyperparameters.lora.r',
  ],
  [
    'an extension in the deprecated place',
    () => ({ hyperparameters: { learning_rate: 1e-4 } }),
    400,
    'unknown_parameter',
    'hyperparameters.learning_rate',
  ],
  [
    'an epoch count of a wrong type',
    () => ({ hyperparameters: { n_epochs: '3' } }),
    400,
    'invalid_value',
    'hyperparameters.n_epochs',
  ],
  [
    'an epoch count that is too high',
    () => nested({ n_epochs: 51 }),
    400,
    'invalid_value',
    'method.supervised.hyperparameters.n_epochs',
  ],
  [
    'no multiplier',
    () => nested({ learning_rate_multiplier: 0 }),
    400,
    'invalid_value',
    'method.supervised.hyperparameters.learning_rate_multiplier',
  ],
  [
    'a name that no projection can have',
    () => nested({ lora: { target_modules: ['q.proj'] } }),
    400,
    'invalid_value',
    'method.supervised.hyperparameters.lora.target_modules[0]',
  ],
  ...(
    [
      ['lora.dropout', { lora: { dropout: 1 } }, 'invalid_value'],
      ['lora.use_dora', { lora: { use_dora: 'yes' } }, 'invalid_type'],
      ['lora.use_rslora', { lora: { use_rslora: 1 } }, 'invalid_type'],
      ['loraplus_lr_ratio', { loraplus_lr_ratio: 0 }, 'invalid_value'],
      ['lr_schedule', { lr_schedule: 'step' }, 'invalid_value'],
      ['warmup_ratio', { warmup_ratio: 1.5 }, 'invalid_value'],
      ['weight_decay', { weight_decay: -1 }, 'invalid_value'],
      ['max_grad_norm', { max_grad_norm: 0 }, 'invalid_value'],
      ['truncation', { truncation: 'cut' }, 'invalid_value'],
      ['max_sequence_length', { max_sequence_length: 4 }, 'invalid_value'],
    ] as const
  ).map(([name, sent, code]): [string, () => object, number, string, string] => [
    `an impossible ${name}`,
    () => nested(sent),
    400,
    code,
    `method.supervised.hyperparameters.${name}`,
  ]),
  [
    'a beta of nothing',
    () => ({ method: { type: 'dpo', dpo: { hyperparameters: { beta: 0 } } } }),
    400,
    'invalid_value',
    'method.dpo.hyperparameters.beta',
  ],
  [
    'a beta above 2',
    () => ({ method: { type: 'dpo', dpo: { hyperparameters: { beta: 2.1 } } } }),
    400,
    'invalid_value',
    'method.dpo.hyperparameters.beta',
  ],
  [
    'a beta where there is none',
    () => nested({ beta: 0.1 }),
    400,
    'unknown_parameter',
    'method.supervised.hyperparameters.beta',
  ],
  ['an empty suffix', () => ({ suffix: '' }), 400, 'invalid_value', 'suffix'],
  ['a long suffix', () => ({ suffix: 'x'.repeat(65) }), 400, 'invalid_value', 'suffix'],
  ['a negative seed', () => ({ seed: -1 }), 400, 'invalid_value', 'seed'],
  ['a seed of a wrong type', () => ({ seed: 'x' }), 400, 'invalid_type', 'seed'],
  [
    'a method to come',
    () => ({ method: { type: 'reinforcement' } }),
    400,
    'unsupported_method',
    'method.type',
  ],
  [
    'a method nobody knows',
    () => ({ method: { type: 'magic' } }),
    400,
    'invalid_value',
    'method.type',
  ],
  [
    'a method without its type',
    () => ({ method: {} }),
    400,
    'missing_required_parameter',
    'method.type',
  ],
  [
    "another method's part",
    () => ({ method: { type: 'supervised', dpo: {} } }),
    400,
    'invalid_value',
    'method.dpo',
  ],
  [
    'an integration',
    () => ({ integrations: [{ type: 'wandb', wandb: { project: 'p' } }] }),
    400,
    'unsupported_integration',
    'integrations',
  ],
  ['metadata that is no map', () => ({ metadata: ['a'] }), 400, 'invalid_type', 'metadata'],
  [
    'a metadata value that is no string',
    () => ({ metadata: { a: 1 } }),
    400,
    'invalid_type',
    'metadata.a',
  ],
  [
    'a long metadata value',
    () => ({ metadata: { a: 'x'.repeat(513) } }),
    400,
    'invalid_value',
    'metadata.a',
  ],
  [
    'too much metadata',
    () => ({ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 'v'])) }),
    400,
    'invalid_value',
    'metadata',
  ],
  [
    'a long metadata key',
    () => ({ metadata: { ['k'.repeat(65)]: 'v' } }),
    400,
    'invalid_value',
    'metadata',
  ],
  [
    'an unknown part of luthier',
    () => ({ luthier: { date: {} } }),
    400,
    'unknown_parameter',
    'luthier.date',
  ],
  [
    'an unknown field of luthier.data',
    () => ({ luthier: { data: { group: ['a'] } } }),
    400,
    'unknown_parameter',
    'luthier.data.group',
  ],
  [
    'an unknown field of luthier.publish',
    () => ({ luthier: { publish: { checkpoints: 'best' } } }),
    400,
    'unknown_parameter',
    'luthier.publish.checkpoints',
  ],
  [
    'an unknown finding',
    () => ({ luthier: { data: { strict: ['typos'] } } }),
    400,
    'invalid_value',
    'luthier.data.strict[0]',
  ],
  [
    'a split that leaves little to train on',
    () => ({ luthier: { data: { validation_split: 0.9 } } }),
    400,
    'invalid_value',
    'luthier.data.validation_split',
  ],
  [
    'a split beside a validation file',
    () => ({ validation_file: training_file, luthier: { data: { validation_split: 0.1 } } }),
    400,
    'invalid_value',
    'luthier.data.validation_split',
  ],
  [
    'an unknown reference file',
    () => ({ luthier: { data: { reference_file: 'file-x' } } }),
    400,
    'invalid_reference_file',
    'luthier.data.reference_file',
  ],
  [
    'an unknown field of early_stopping',
    () => nested({ early_stopping: { wait: 3 } }),
    400,
    'unknown_parameter',
    'method.supervised.hyperparameters.early_stopping.wait',
  ],
])('%s is refused', async (_, change, status, code, param) => {
  const before = await service.get('/v1/fine_tuning/jobs?limit=100')
  const reply = await create({ ...valid(), ...change() })
  expect(reply).toMatchObject({ status, body: { error: { code, param } } })
  expect(reply.body.error.type).toBe('invalid_request_error')
  expect((await service.get('/v1/fine_tuning/jobs?limit=100')).body).toEqual(before.body)
})

test('jobs are listed newest first, page by page, and filtered by their metadata', async () => {
  const other = await openTestApi()
  await using _ = other
  const file = await other.upload('{"prompt":"a","completion":"b"}\n'.repeat(10))
  const ids: string[] = []
  for (const metadata of [{ a: '1' }, null, { a: '1', b: '2' }, {}]) {
    const body = { model: 'tiny', training_file: file, metadata }
    ids.unshift((await other.post('/v1/fine_tuning/jobs', body)).body.id)
  }
  const list = async (query: string) => (await other.get(`/v1/fine_tuning/jobs${query}`)).body
  const idsOf = (body: { data: Array<{ id: string }> }) => body.data.map((job) => job.id)

  expect(idsOf(await list(''))).toEqual(ids)
  const first = await list('?limit=3')
  expect(first).toMatchObject({ object: 'list', has_more: true, first_id: ids[0], last_id: ids[2] })
  const rest = await list(`?limit=3&after=${ids[2]}`)
  expect([idsOf(rest), rest.has_more]).toEqual([[ids[3]], false])

  expect(idsOf(await list('?metadata[a]=1'))).toEqual([ids[1], ids[3]])
  expect(idsOf(await list('?metadata%5Ba%5D=1&metadata[b]=2'))).toEqual([ids[1]])
  expect(idsOf(await list('?metadata[a]=2'))).toEqual([])
  expect(idsOf(await list('?metadata=null'))).toEqual([ids[0], ids[2]])
})

test.each([
  ['a limit of none', '?limit=0', 'limit'],
  ['a limit that is too high', '?limit=101', 'limit'],
  ['a limit that is no number', '?limit=many', 'limit'],
  ['a cursor that leads nowhere', '?after=ftjob-x', 'after'],
])('%s is refused', async (_, query, param) => {
  const reply = await service.get(`/v1/fine_tuning/jobs${query}`)
  expect(reply).toMatchObject({ status: 400, body: { error: { param } } })
})

test('events are paged without loss', async () => {
  const { body: job } = await create(valid())
  const url = `/v1/fine_tuning/jobs/${job.id}/events`
  const first = await service.get(`${url}?limit=1`)
  expect(first.body).toMatchObject({ has_more: true, data: [{ message: expect.any(String) }] })
  const second = await service.get(`${url}?limit=1&after=${first.body.last_id}`)
  expect(second.body).toMatchObject({
    has_more: false,
    data: [{ message: eventText.created(job.id) }],
  })
})

test('a cancelled job says so, and cannot be cancelled again', async () => {
  const { body: job } = await create(valid())
  const url = `/v1/fine_tuning/jobs/${job.id}/cancel`
  const cancelled = await service.post(url)
  expect(cancelled).toMatchObject({
    status: 200,
    body: { id: job.id, status: 'cancelled', finished_at: expect.any(Number), error: null },
  })
  const events = await service.get(`/v1/fine_tuning/jobs/${job.id}/events`)
  expect(events.body.data[0].message).toBe('Job cancelled')
  expect(await service.post(url)).toMatchObject({
    status: 400,
    body: { error: { type: 'invalid_request_error', code: 'invalid_job_state' } },
  })
})

test.each(['', '/events', '/checkpoints'])('%s of a job there is not: 404', async (path) => {
  expect(await service.get(`/v1/fine_tuning/jobs/ftjob-none${path}`)).toMatchObject({
    status: 404,
    body: { error: { type: 'invalid_request_error', code: null } },
  })
})

test('a job of another project is not there', async () => {
  const { body: job } = await create(valid())
  const stranger = await service.stranger()
  expect(await stranger.get(`/v1/fine_tuning/jobs/${job.id}`)).toMatchObject({ status: 404 })
  expect(await stranger.post(`/v1/fine_tuning/jobs/${job.id}/cancel`)).toMatchObject({
    status: 404,
  })
  expect(await stranger.post('/v1/fine_tuning/jobs', valid())).toMatchObject({
    status: 400,
    body: { error: { param: 'training_file' } },
  })
})

test('a key that may only read cannot create', async () => {
  const reader = await service.withScope('read')
  expect(await reader.get('/v1/fine_tuning/jobs')).toMatchObject({ status: 200 })
  expect(await reader.post('/v1/fine_tuning/jobs', valid())).toMatchObject({ status: 403 })
})

test('deleting its file leaves a job what it needs, until it has ended', async () => {
  const file = await service.upload('{"prompt":"only here","completion":"b"}\n'.repeat(10))
  const { body: job } = await create({ ...valid(), training_file: file })
  expect(await service.delete(`/v1/files/${file}`)).toMatchObject({ status: 200 })
  const { rows } = await service.db.query(
    `select o.sha256 from objects o join fine_tuning_jobs j
        on j.project_id = o.project_id and j.training_pin = o.sha256 where j.id = $1`,
    [job.id],
  )
  expect(rows).toHaveLength(1)
  expect(await service.store.head(`${service.caller.project_id}/${rows[0].sha256}`)).toBeDefined()
  await service.post(`/v1/fine_tuning/jobs/${job.id}/cancel`)
  expect(await service.store.head(`${service.caller.project_id}/${rows[0].sha256}`)).toBeUndefined()
  expect((await service.get(`/v1/fine_tuning/jobs/${job.id}`)).body.training_file).toBe(file)
})

test('two base models of one id end the start', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-models-'))
  try {
    await mkdir(join(folder, 'tiny'))
    await writeFile(join(folder, 'tiny', 'config.json'), '{}')
    await writeFile(join(folder, 'tiny.gguf'), '')
    await expect(openTestApi({ models: folder })).rejects.toThrow('Two base models')
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('a file that is deleted while its job is created is one that does not exist', async () => {
  const { stores, models, files, caller, project_id } = service
  const id = await service.upload('{"prompt":"gone","completion":"b"}\n'.repeat(10))
  const jobs = createJobs({ stores, models, log: { info: () => {} } })
  const creating = jobs.create(caller, { model: 'tiny', training_file: id }, async (write) => {
    await files.delete(project_id, id)
    return transaction(service.db, write)
  })
  await expect(creating).rejects.toMatchObject({ status: 400, code: 'invalid_training_file' })
})

test('a job for more devices than the only server has is refused', async () => {
  const { stores, models, caller } = service
  const training_file = await service.upload('{"prompt":"a","completion":"b"}\n'.repeat(10))
  const jobs = createJobs({ stores, models, devices: 2, log: { info: () => {} } })
  const create = (data_parallel: number) =>
    jobs.create(caller, {
      model: 'tiny',
      training_file,
      method: { type: 'supervised', supervised: { hyperparameters: { data_parallel } } },
    })
  await expect(create(3)).rejects.toMatchObject({
    status: 400,
    message: 'The job asks for 3 devices, and this server has 2.',
    param: 'method.supervised.hyperparameters.data_parallel',
  })
  expect((await create(2)).status).toBe('validating_files')
})
