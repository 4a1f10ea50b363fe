// Jobs and the memory that they share, through HTTP, on a model of two layers and two devices.

import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DevicePool } from '../../../src/service/scheduler/device-pool.ts'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

let service: TestApi
let models = ''
beforeAll(async () => {
  models = await mkdtemp(join(tmpdir(), 'luthier-models-'))
  await mkdir(join(models, 'tiny'))
  await writeTinyModel(join(models, 'tiny'))
  await writeTinyModel(join(models, 'deep'), {
    config: { num_hidden_layers: 8, max_position_embeddings: 1024 },
  })
  service = await openTestApi({ models })
})
afterAll(async () => {
  await service?.[Symbol.asyncDispose]()
  await rm(models, { recursive: true, force: true })
})

const train = (memory: number) =>
  startTraining({
    stores: service.stores,
    models: service.models,
    cache: join(service.folder, 'weights'),
    precision: 'fp32',
    log: testLog,
    adapterFile: service.adapterFile,
    serving: service.serving,
    pool: new DevicePool(2),
    compute: { device: 'cpu', threads: 1 },
    folders: [models],
    poll_seconds: 0.1,
    memory,
  })

async function create(n_epochs = 1, model = 'tiny', words = 1): Promise<string> {
  const rows = Array.from({ length: words > 1 ? 10 : 16 }, (_, i) =>
    JSON.stringify({ prompt: `question ${i * 7}`, completion: ` answer ${i}`.repeat(words) }),
  )
  const { body } = await service.post('/v1/fine_tuning/jobs', {
    model,
    seed: 3,
    training_file: await service.upload(`${rows.join('\n')}\n`),
    method: { type: 'supervised', supervised: { hyperparameters: { n_epochs, batch_size: 4 } } },
  })
  return `/v1/fine_tuning/jobs/${body.id}`
}

async function until(reached: () => Promise<boolean>) {
  for (let waited = 0; waited < 60_000; waited += 20) {
    if (await reached()) return
    await sleep(20)
  }
  throw new Error('It did not come to that.')
}

const statusOf = async (path: string): Promise<string> => (await service.get(path)).body.status
const hasEnded = async (path: string) => ['succeeded', 'failed'].includes(await statusOf(path))

/** How many of the jobs were seen running at once, at most. */
async function mostRunning(paths: readonly string[]): Promise<number> {
  let most = 0
  await until(async () => {
    const statuses = await Promise.all(paths.map(statusOf))
    most = Math.max(most, statuses.filter((status) => status === 'running').length)
    return statuses.every((status) => status === 'succeeded')
  })
  return most
}

test('a job that cannot fit is refused with the figure', async () => {
  await using _ = train(100e6)
  const path = await create()
  await until(() => hasEnded(path))
  const { body } = await service.get(path)
  expect(body).toMatchObject({
    status: 'failed',
    error: {
      code: 'insufficient_memory',
      param: 'method.supervised.hyperparameters.max_sequence_length',
      message: expect.stringMatching(/need about 0\.3 GB of memory, and 0\.1 GB are free/),
    },
  })
})

test('two jobs train at once where both fit, and one after the other where they do not', async () => {
  // Long enough that the second is planned while the first still runs.
  const pair = async () => [await create(25), await create(25)]
  {
    await using _ = train(4e9)
    expect(await mostRunning(await pair())).toBe(2)
  }
  await using _ = train(400e6)
  expect(await mostRunning(await pair())).toBe(1)
})

test('where keeping everything does not fit, less is kept: the plan says so, and the bytes are the same', async () => {
  const run = async (memory: number) => {
    await using _ = train(memory)
    const path = await create(1, 'deep', 92)
    await until(() => hasEnded(path))
    const { body } = await service.get(path)
    expect([body.status, body.error]).toEqual(['succeeded', null])
    const { adapter } = await service.models.resolve(
      service.caller.project_id,
      body.fine_tuned_model,
    )
    const { data } = (await service.get(`${path}/events?limit=100`)).body
    const plan = data.find((event: { data: { kind?: string } }) => event.data.kind === 'plan')
    const { reasons, forecast } = plan.data as {
      reasons: string[]
      forecast: { memory_bytes: number }
    }
    const told = reasons.filter((reason) => reason.startsWith('memory: '))
    return { told, memory_bytes: forecast.memory_bytes, sha256: adapter?.sha256 }
  }
  const everything = await run(4e9)
  expect(everything.told).toEqual([])
  const less = await run(1.1 * everything.memory_bytes)
  expect(less.told).toEqual([
    expect.stringMatching(
      /^memory: \d\.\d GB are free and keeping everything would take \d\.\d GB, so what lies between products is computed twice$/,
    ),
  ])
  expect(less.memory_bytes).toBeLessThan(everything.memory_bytes)
  expect(less.sha256).toBe(everything.sha256)
})
