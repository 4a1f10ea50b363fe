// What `precision: auto` comes to, through HTTP: tried once, told with its reason, kept when the job goes on elsewhere.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { settledPrecision } from '../../../src/engine/train/kept-choice.ts'
import type { Plan } from '../../../src/engine/train/request.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

let service: TestApi
let models = ''
beforeAll(async () => {
  models = await mkdtemp(join(tmpdir(), 'luthier-models-'))
  await writeTinyModel(join(models, 'tiny'))
  // Just above the 20 million weights below which nothing is tried.
  const wide = { hidden_size: 512, intermediate_size: 2048, num_hidden_layers: 6 }
  const heads = { num_attention_heads: 8, num_key_value_heads: 2 }
  await writeTinyModel(join(models, 'wide'), { config: { ...wide, ...heads } })
  service = await openTestApi({ models })
})
afterAll(async () => {
  await service?.[Symbol.asyncDispose]()
  await rm(models, { recursive: true, force: true })
})

/** A worker, and what it logs of the precisions that it chose. */
function train() {
  const chosen: unknown[] = []
  const write = (line: string) => {
    const { msg, precision } = JSON.parse(line)
    if (msg === 'precision chosen') chosen.push(precision)
  }
  const worker = startTraining({
    stores: service.stores,
    models: service.models,
    cache: join(service.folder, 'weights'),
    precision: 'auto',
    log: pino({ level: 'info' }, { write }),
    adapterFile: service.adapterFile,
    serving: service.serving,
    pool: service.pool,
    compute: { device: 'cpu', threads: 1 },
    folders: [models, service.folder],
    lease_seconds: 2,
    poll_seconds: 0.1,
  })
  return { chosen, [Symbol.asyncDispose]: () => worker[Symbol.asyncDispose]() }
}

async function create(model: string, hyperparameters: object = {}): Promise<string> {
  const rows = Array.from({ length: 12 }, (_, i) =>
    JSON.stringify({ prompt: `${i} is`, completion: i % 2 ? ' odd' : ' even' }),
  )
  const { body } = await service.post('/v1/fine_tuning/jobs', {
    model,
    training_file: await service.upload(`${rows.join('\n')}\n`),
    seed: 5,
    method: {
      type: 'supervised',
      supervised: { hyperparameters: { n_epochs: 1, batch_size: 4, ...hyperparameters } },
    },
  })
  return body.id
}

const job = async (id: string) => (await service.get(`/v1/fine_tuning/jobs/${id}`)).body
const events = async (id: string): Promise<{ message: string; data: Record<string, unknown> }[]> =>
  (await service.get(`/v1/fine_tuning/jobs/${id}/events?limit=1000`)).body.data

async function until(id: string, reached: (status: string, steps: number) => boolean) {
  const sql = 'select count(*)::int as steps from fine_tuning_steps where job_id = $1'
  for (let waited = 0; waited < 90_000; waited += 20) {
    const { steps } = (await service.db.query(sql, [id])).rows[0]
    if (reached((await job(id)).status, steps)) return
    await sleep(20)
  }
  throw new Error(`It did not come to that: ${JSON.stringify(await events(id), null, 1)}`)
}
const ended = (id: string) => until(id, (status) => ['succeeded', 'failed'].includes(status))

async function adapterOf(id: string): Promise<string | undefined> {
  const name = (await job(id)).fine_tuned_model
  return (await service.models.resolve(service.caller.project_id, name)).adapter?.sha256
}

test('auto is tried once, told with its figures, and kept by a job that goes on elsewhere', async () => {
  const id = await create('wide')
  {
    await using first = train()
    await until(id, (_, steps) => steps >= 1)
    expect(first.chosen).toHaveLength(1)
  }
  const told = (await events(id)).filter(({ data }) => data.kind === 'precision')
  expect(told).toHaveLength(1)
  const { message, data } = told[0]!
  expect(['fp32', 'int8']).toContain(data.precision)
  expect(data.reason).toMatch(
    /^int8 is \d+\.\d\d times as fast as fp32 here, its gradient has a cosine of [01]\.\d{3} to fp32's/,
  )
  expect(message).toBe(`Precision: ${data.precision} (${data.reason})`)
  const { precision } = (await job(id)).method.supervised.hyperparameters
  expect(precision).toBe(undefined) // Absent where it was not sent.

  await using second = train()
  await ended(id)
  expect((await job(id)).error).toBe(null)
  expect(second.chosen).toEqual([])
  // The bytes are those of a job that named it from the start.
  const named = await create('wide', { precision: data.precision })
  await ended(named)
  expect(await adapterOf(id)).toBe(await adapterOf(named))
  const other = await create('wide', { precision: data.precision === 'int8' ? 'fp32' : 'int8' })
  await ended(other)
  expect(await adapterOf(id)).not.toBe(await adapterOf(other))
  expect(second.chosen).toEqual([])
})

test('a choice that was kept for the base is told as one, and the job trains with it', async () => {
  // Where the job before has kept none, its trial having been too close, this one is.
  const { choice } = await settledPrecision(
    {
      checkpoint: await openCheckpoint(join(models, 'wide')),
      cache: join(service.folder, 'weights'),
      method: 'supervised',
      plan: { threads: 1 } as Plan,
    },
    async () => ({
      choice: { precision: 'int8', reason: 'int8 is faster here' },
      isClear: true,
      trainer: undefined,
    }),
  )
  await using worker = train()
  const id = await create('wide')
  await ended(id)
  expect((await job(id)).error).toBe(null)
  const told = (await events(id)).filter(({ data }) => data.kind === 'precision')
  expect(told.map(({ data }) => data.precision)).toEqual([choice.precision])
  expect(told[0]!.message).toMatch(/kept from a trial of this base at 20/)
  expect(worker.chosen).toEqual([choice.precision])
})

test('what is not tried is told with its reason too, in the event of the plan', async () => {
  await using worker = train()
  const id = await create('tiny', { precision: 'auto' })
  await ended(id)
  const plan = (await events(id)).find(({ data }) => data.kind === 'plan')
  expect((await job(id)).error).toBe(null)
  expect(plan?.data.reasons).toContain(
    'precision fp32: the model is too small to be faster in int8',
  )
  expect((await job(id)).method.supervised.hyperparameters.precision).toBe('fp32')
  expect(worker.chosen).toEqual([])
})
