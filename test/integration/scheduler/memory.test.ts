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

async function create(n_epochs = 1): Promise<string> {
  const rows = Array.from({ length: 16 }, (_, i) =>
    JSON.stringify({ prompt: `question ${i * 7}`, completion: ` answer ${i}` }),
  )
  const { body } = await service.post('/v1/fine_tuning/jobs', {
    model: 'tiny',
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
