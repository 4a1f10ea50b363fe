import { Readable } from 'node:stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Plan, StepMetrics } from '../../../src/engine/train/request.ts'
import { changeJob, type FineTuningJob, findJob } from '../../../src/service/db/fine-tuning-jobs.ts'
import { transaction } from '../../../src/service/db/pool.ts'
import {
  cancelWork,
  claimWork,
  insertWork,
  type Lease,
  LeaseLost,
} from '../../../src/service/db/work.ts'
import { FINE_TUNING_JOB } from '../../../src/service/jobs/jobs.ts'
import { Progress } from '../../../src/service/jobs/progress.ts'
import { releaseEnded } from '../../../src/service/jobs/superseded.ts'
import { objectKey } from '../../../src/service/storage/object-store.ts'
import { sweepUnknown } from '../../../src/service/storage/objects.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { bearer } from '../../support/service.ts'

let service: TestApi
beforeAll(async () => {
  service = await openTestApi({ aliases: { 'gpt-4o-mini': 'tiny' } })
})
afterAll(() => service?.[Symbol.asyncDispose]())

const plan: Plan = {
  n_epochs: 4,
  batch_size: 5,
  learning_rate_multiplier: 1,
  learning_rate: 2e-4,
  lora: { rank: 8, alpha: 16, target_modules: ['q_proj'] },
  lr_schedule: 'linear',
  warmup_steps: 0,
  weight_decay: 0,
  max_grad_norm: 1,
  total_steps: 8,
  max_sequence_length: 128,
  row_length: 128,
  rows: 1,
  threads: 1,
  precision: 'fp32',
  reasons: ['n_epochs is 4 because the file is small.'],
}

const metrics = (step: number): StepMetrics => ({
  step,
  total_steps: 8,
  epoch: Math.ceil(step / 2),
  train_loss: 2 / step,
  train_mean_token_accuracy: 0.5,
  ...(step % 2 === 0 && { valid_loss: 1, valid_mean_token_accuracy: 0.25 }),
  learning_rate: 1e-4,
  grad_norm: 1,
})

/** A new job, claimed by us. */
async function claimedJob(model = 'tiny', suffix = 'desk') {
  const training_file = await service.upload(`{"prompt":"${Math.random()}","completion":"b"}\n`)
  const { body } = await service.post('/v1/fine_tuning/jobs', { model, training_file, suffix })
  const lease = await claimWork(service.db, 'test', [FINE_TUNING_JOB], 30)
  expect(lease?.id).toBe(body.id)
  return { id: body.id as string, lease: lease as Lease, ...reader(body.id) }
}

const reader = (id: string) => ({
  job: async () => (await findJob(service.db, service.caller.project_id, id)) as FineTuningJob,
  events: async () => (await service.get(`/v1/fine_tuning/jobs/${id}/events?limit=100`)).body.data,
})

const stored = async (): Promise<string[]> => {
  const { objects } = await service.store.list(service.caller.project_id)
  return objects.map((object) => object.key)
}

const state = (step: number) => ({
  type: 'state' as const,
  step,
  state: Buffer.from(`state ${step} ${Math.random()}`),
  losses: { epoch: 1, lines: new Int32Array(0), losses: new Float32Array(0) },
})

const checkpoint = (id: string, step: number) => ({
  type: 'checkpoint' as const,
  metrics: metrics(step),
  adapter: Buffer.from(`adapter of ${id} at ${step}`),
  adapter_config: '{"r":8}',
  is_best: true,
})

async function run(progress: Progress, id: string, job: () => Promise<FineTuningJob>, from = 1) {
  for (let step = from; step <= 8; step++) {
    await progress.step(metrics(step), new Date())
    if (step % 2 === 0) {
      await progress.state(state(step))
      await progress.checkpoint(await job(), checkpoint(id, step))
    }
  }
}

test('what a trial chose is kept in the plan and told once', async () => {
  const { lease, job, events } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned({ ...plan, precision: 'auto' }, [])
  await progress.started()
  for (const reason of ['twice as fast', 'again'])
    await progress.precision({ precision: 'int8', reason })
  expect((await job()).plan).toMatchObject({ precision: 'int8' })
  const told = (await events()).filter((e: { message: string }) => /^Precision/.test(e.message))
  expect(told.map((e: { message: string }) => e.message)).toEqual([
    'Precision: int8 (twice as fast)',
  ])
  await progress.failed({ error: { code: 'server_error', message: 'x', param: null }, errors: [] })
})

test('a job is told, measured, saved and ends with a model', async () => {
  const { id, lease, job, events } = await claimedJob('gpt-4o-mini')
  const before = await stored()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, ['2 examples were cut.'])
  expect((await job()).status).toBe('queued')
  await progress.started()
  expect((await job()).status).toBe('running')
  await run(progress, id, job)
  const done = { type: 'done' as const, step: 8, trained_tokens: 321 }
  await progress.publish(await job(), done)
  await progress.succeeded(await job(), done, {})

  const { body } = await service.get(`/v1/fine_tuning/jobs/${id}`)
  const name = body.fine_tuned_model
  expect(name).toMatch(/^ft:gpt-4o-mini:luthier:desk:[0-9A-Za-z]{8}$/)
  expect(body).toMatchObject({
    status: 'succeeded',
    trained_tokens: 321,
    finished_at: expect.any(Number),
    estimated_finish: null,
    error: null,
    hyperparameters: { n_epochs: 4, batch_size: 5, learning_rate_multiplier: 1 },
  })

  const told = (await events()).reverse()
  expect(told.map((event: { message: string }) => event.message)).toEqual([
    `Created fine-tuning job: ${id}`,
    `Validating training file: ${body.training_file}`,
    '2 examples were cut.',
    'Files validated, moving job to queued state',
    'Training plan: 4 epoch(s), batch size 5, learning rate 0.0002, 8 steps',
    'Fine-tuning job started',
    'Step 1/8: training loss=2.00',
    'Step 2/8: training loss=1.00, validation loss=1.00',
    `Checkpoint created at step 2 with Snapshot ID: ${name}:ckpt-step-2`,
    'Step 3/8: training loss=0.67',
    'Step 4/8: training loss=0.50, validation loss=1.00',
    `Checkpoint created at step 4 with Snapshot ID: ${name}:ckpt-step-4`,
    'Step 5/8: training loss=0.40',
    'Step 6/8: training loss=0.33, validation loss=1.00',
    `Checkpoint created at step 6 with Snapshot ID: ${name}:ckpt-step-6`,
    'Step 7/8: training loss=0.29',
    'Step 8/8: training loss=0.25, validation loss=1.00',
    `Checkpoint created at step 8 with Snapshot ID: ${name}`,
    `New fine-tuned model created: ${name}`,
    'The job has successfully completed',
  ])
  expect(told[7]).toMatchObject({
    type: 'metrics',
    data: {
      step: 2,
      total_steps: 8,
      train_loss: 1,
      train_mean_token_accuracy: 0.5,
      valid_loss: 1,
      valid_mean_token_accuracy: 0.25,
    },
  })

  const [result_file] = body.result_files
  expect((await service.get(`/v1/files/${result_file}`)).body).toMatchObject({
    purpose: 'fine-tune-results',
    filename: 'step_metrics.csv',
    status: 'processed',
  })
  const content = await service.app.inject({
    url: `/v1/files/${result_file}/content`,
    headers: bearer(service.key),
  })
  expect(content.body.split('\n')).toEqual([
    'step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy',
    ...['1,2,0.5,,', '2,1,0.5,1,0.25', '3,0.66667,0.5,,', '4,0.5,0.5,1,0.25'],
    ...['5,0.4,0.5,,', '6,0.33333,0.5,1,0.25', '7,0.28571,0.5,,', '8,0.25,0.5,1,0.25'],
    '',
  ])

  const list = await service.get(`/v1/fine_tuning/jobs/${id}/checkpoints`)
  expect(list.body).toMatchObject({ object: 'list', has_more: false })
  expect(
    list.body.data.map((c: { step_number: number; fine_tuned_model_checkpoint: string }) => [
      c.step_number,
      c.fine_tuned_model_checkpoint,
    ]),
  ).toEqual([
    [8, name],
    [6, `${name}:ckpt-step-6`],
    [4, `${name}:ckpt-step-4`],
  ])
  expect(list.body.data[1]).toMatchObject({
    object: 'fine_tuning.job.checkpoint',
    id: expect.stringMatching(/^ftckpt_/),
    fine_tuning_job_id: id,
    metrics: { step: 6, train_loss: 2 / 6 },
  })
  const page = await service.get(`/v1/fine_tuning/jobs/${id}/checkpoints?limit=1`)
  const next = `/v1/fine_tuning/jobs/${id}/checkpoints?limit=2&after=${page.body.last_id}`
  expect((await service.get(next)).body.data).toEqual(list.body.data.slice(1))

  // Three adapters, their one config, the result file: no state, no fourth adapter.
  expect((await stored()).length - before.length).toBe(5)
})

test('a tuned model and its checkpoints answer to their names until the model is deleted', async () => {
  const { id, lease, job } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, [])
  await progress.started()
  await run(progress, id, job)
  await progress.succeeded(await job(), { type: 'done', step: 8, trained_tokens: 1 }, {})
  const name = (await job()).model_name
  const url = `/v1/models/${encodeURIComponent(name)}`

  const entry = {
    id: name,
    object: 'model',
    created: expect.any(Number),
    owned_by: 'luthier',
    parent: 'tiny',
    root: 'tiny',
    job_id: id,
    parity: null,
  }
  expect((await service.get(url)).body).toEqual(entry)
  expect((await service.get(`/v1/models/${name}`)).body).toEqual(entry)
  expect((await service.get(`${url}:ckpt-step-6`)).body).toMatchObject({
    id: `${name}:ckpt-step-6`,
    root: 'tiny',
    job_id: id,
  })
  expect((await service.get(`${url}:live`)).body).toMatchObject({ id: `${name}:live`, job_id: id })
  const project_id = service.caller.project_id
  const newest = await service.models.resolve(project_id, `${name}:live`)
  expect(newest.adapter).toEqual((await service.models.resolve(project_id, name)).adapter)
  const resolved = await service.models.resolve(project_id, name)
  expect(resolved).toMatchObject({ id: name, root: 'tiny', job_id: id, project_id })
  const adapter = objectKey(project_id, resolved.adapter?.sha256 ?? '')
  expect(await service.store.head(adapter)).toBeDefined()
  expect((await service.models.resolve(project_id, `${name}:ckpt-step-4`)).adapter).toBeDefined()
  const stranger = await service.stranger()
  expect(await stranger.get(url)).toMatchObject({ status: 404 })
  expect(await stranger.get(`${url}:live`)).toMatchObject({ status: 404 })
  expect(await stranger.delete(url)).toMatchObject({ status: 404 })
  const reader = await service.withScope('read')
  expect(await reader.delete(url)).toMatchObject({ status: 403 })

  expect(await service.delete(url)).toEqual({
    status: 200,
    body: { id: name, object: 'model', deleted: true },
  })
  for (const gone of [url, `${url}:live`, `${url}:ckpt-step-4`, `${url}:ckpt-step-6`])
    expect(await service.get(gone)).toMatchObject({
      status: 404,
      body: { error: { code: 'model_not_found', param: 'model' } },
    })
  expect(await service.delete(url)).toMatchObject({ status: 404 })
  expect(await service.store.head(adapter)).toBeUndefined()
  expect((await service.get(`/v1/fine_tuning/jobs/${id}`)).body.fine_tuned_model).toBe(name)
  const list = await service.get(`/v1/fine_tuning/jobs/${id}/checkpoints`)
  expect(list.body.data).toHaveLength(3)
})

test('base models and aliases are listed, retrieved and never deleted', async () => {
  const list = await service.get('/v1/models')
  expect(list.body.object).toBe('list')
  expect(list.body.data).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ id: 'tiny', owned_by: 'system', parent: null, root: 'tiny' }),
      expect.objectContaining({ id: 'gpt-4o-mini', parent: 'tiny', root: 'tiny', job_id: null }),
    ]),
  )
  expect((await service.get('/v1/models/gpt-4o-mini')).body.root).toBe('tiny')
  for (const base of ['tiny', 'gpt-4o-mini'])
    expect(await service.delete(`/v1/models/${base}`)).toMatchObject({
      status: 400,
      body: { error: { type: 'invalid_request_error', param: 'model' } },
    })
})

test('what is done again after a crash is told, measured and saved once', async () => {
  const { id, lease, job, events } = await claimedJob()
  const first = new Progress(service.stores, lease)
  await first.planned(plan, [])
  await first.started()
  await first.step(metrics(1), new Date())
  await first.step(metrics(2), new Date())
  await first.state(state(2))
  await first.checkpoint(await job(), checkpoint(id, 2))
  await first.step(metrics(3), new Date())
  await first.step(metrics(4), new Date())
  await first.checkpoint(await job(), checkpoint(id, 4))

  await service.db.query(`update work set lease_until = now() where id = $1`, [id])
  const again = (await claimWork(service.db, 'other', [FINE_TUNING_JOB], 30)) as Lease
  const second = new Progress(service.stores, again)
  expect(await second.job()).toMatchObject({ status: 'running', state_step: 2, plan })
  const before = await stored()
  await expect(first.step(metrics(5), new Date())).rejects.toThrow(LeaseLost)
  await expect(first.state(state(5))).rejects.toThrow(LeaseLost)
  await expect(first.checkpoint(await job(), checkpoint(id, 6))).rejects.toThrow(LeaseLost)
  expect(await stored()).toEqual(before)

  await second.started()
  await run(second, id, job, 3)
  await second.succeeded(await job(), { type: 'done', step: 8, trained_tokens: 5 }, {})
  const { rows } = await service.db.query(
    'select array_agg(step order by step) as steps from fine_tuning_steps where job_id = $1',
    [id],
  )
  expect(rows[0].steps).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  const messages = (await events()).map((event: { message: string }) => event.message)
  expect(new Set(messages).size).toBe(messages.length)
  expect(messages.filter((m: string) => m.startsWith('Step '))).toHaveLength(8)
})

test('a job that fails says why and leaves no state', async () => {
  const { id, lease, events } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, [])
  await progress.started()
  const before = await stored()
  await progress.state(state(1))
  expect(await stored()).toHaveLength(before.length + 1)
  const error = { code: 'invalid_training_file', message: 'It is bad.', param: 'training_file' }
  const rows = [
    { param: 'training_file' as const, line: 3, pointer: '', check: 'data_type', message: 'bad' },
  ]
  await progress.failed({ error, errors: rows })
  const { body } = await service.get(`/v1/fine_tuning/jobs/${id}`)
  expect(body).toMatchObject({ status: 'failed', error, finished_at: expect.any(Number) })
  expect((await events())[0]).toMatchObject({
    level: 'error',
    type: 'message',
    message: 'It is bad.',
    data: { errors: rows },
  })
  expect(await stored()).toEqual(before)
  const cancelled = await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)
  expect(cancelled).toMatchObject({ status: 400 })
})

test('a checkpoint that newer ones have pushed out is still a place to go on from', async () => {
  const { id, lease, job } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, [])
  await progress.started()
  const url = `/v1/fine_tuning/jobs/${id}/checkpoints`
  await progress.checkpoint(await job(), checkpoint(id, 2))
  await progress.checkpoint(await job(), checkpoint(id, 3))
  const { last_id } = (await service.get(`${url}?limit=1`)).body
  for (const step of [4, 5, 6]) await progress.checkpoint(await job(), checkpoint(id, step))
  // Steps 2 and 3 are gone: nothing is older than step 3.
  expect(await service.get(`${url}?after=${last_id}`)).toMatchObject({
    status: 200,
    body: { data: [], has_more: false },
  })
  expect((await service.get(`${url}?after=ftckpt_none`)).status).toBe(400)
  await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)
})

test('a cancel ends the holder, its state goes and its checkpoints stay usable', async () => {
  const { id, lease, job } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, [])
  await progress.started()
  const before = await stored()
  await progress.state(state(2))
  await progress.checkpoint(await job(), checkpoint(id, 2))
  await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)
  await expect(progress.step(metrics(3), new Date())).rejects.toThrow(LeaseLost)
  expect(await job()).toMatchObject({ status: 'cancelled', state_sha256: null })
  const name = `${(await job()).model_name}:ckpt-step-2`
  expect(await service.get(`/v1/models/${name}`)).toMatchObject({ status: 200 })
  expect(await service.delete(`/v1/models/${name}`)).toMatchObject({ status: 200 })
  expect(await service.get(`/v1/models/${name}`)).toMatchObject({ status: 404 })
  // The adapter's config is shared with other jobs of this file.
  const left = (await stored()).filter((key) => !before.includes(key))
  expect(left.length).toBeLessThanOrEqual(1)
})

test('a crash between naming a new state and releasing the old one leaves nothing behind', async () => {
  const { id, lease, job } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, [])
  await progress.started()
  await progress.state(state(1))
  const old = (await job()).state_sha256 ?? ''
  // What `state` has committed when the process dies before it releases.
  await transaction(service.db, (tx) =>
    tx.query(
      `update fine_tuning_jobs set state_sha256 = null, state_step = null,
              superseded = superseded || state_sha256 where id = $1`,
      [id],
    ),
  )
  const key = objectKey(service.caller.project_id, old)
  expect(await service.store.head(key)).toBeDefined()
  await new Progress(service.stores, lease).job()
  expect(await service.store.head(key)).toBeUndefined()
  expect((await job()).superseded).toEqual([])
  await progress.failed({ error: { code: 'x', message: 'x', param: null }, errors: [] })
})

test('what a job left behind when its process died at its very end is released by the next start', async () => {
  const { id, lease, job } = await claimedJob()
  const progress = new Progress(service.stores, lease)
  await progress.planned(plan, [])
  await progress.started()
  await progress.state(state(1))
  const key = objectKey(service.caller.project_id, (await job()).state_sha256 ?? '')
  // What `cancel` has committed when the process dies before it releases.
  await transaction(service.db, async (tx) => {
    await cancelWork(tx, id)
    await changeJob(tx, id, 'cancelled')
  })
  expect(await service.store.head(key)).toBeDefined()
  await releaseEnded(service.stores)
  expect(await service.store.head(key)).toBeUndefined()
  expect((await job()).superseded).toEqual([])
})

test('bytes that a dead process stored but did not name are swept, all others stay', async () => {
  const { project_id } = service.caller
  const before = await stored()
  const staged = await service.store.stage(Readable.from([Buffer.from('nobody names me')]))
  await staged.keep(project_id)
  expect(await stored()).toHaveLength(before.length + 1)
  expect(await sweepUnknown(service.stores, project_id)).toBe(1)
  expect(await stored()).toEqual(before)
})

test('work without its job is an error that names it', async () => {
  const { project_id } = service.caller
  await insertWork(service.db, { id: 'ftjob-lost', kind: FINE_TUNING_JOB, project_id })
  const lease = (await claimWork(service.db, 'test', [FINE_TUNING_JOB], 30)) as Lease
  await expect(new Progress(service.stores, lease).job()).rejects.toThrow('ftjob-lost')
})
