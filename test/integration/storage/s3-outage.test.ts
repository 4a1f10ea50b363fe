// The store goes away while a job lives and requests come. LUTHIER_OUTAGE_SECONDS=60 makes each outage a minute.

import { cp, mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startTraining } from '../../../src/service/scheduler/training.ts'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { testLog } from '../../support/log.ts'
import { openBucket } from '../../support/objects.ts'
import { openRelay, type Relay } from '../../support/relay.ts'
import { NO_S3, s3Server } from '../../support/s3.ts'
import { bearer } from '../../support/service.ts'
import { shared } from '../../support/shared.ts'

const stories = shared('models/stories260k')
const seconds = Number(process.env.LUTHIER_OUTAGE_SECONDS ?? 4)

describe.skipIf(stories.missing || !s3Server())(`an outage of S3 (${NO_S3})`, () => {
  let service: TestApi
  let relay: Relay
  let models = ''
  beforeAll(async () => {
    models = await mkdtemp(join(tmpdir(), 'luthier-models-'))
    await cp(stories.path, join(models, 'stories260k'), { recursive: true })
    const { hostname, port } = new URL(s3Server()!.endpoint)
    relay = await openRelay(hostname, Number(port))
    const objects = await openBucket({
      endpoint: `http://127.0.0.1:${relay.port}`,
      answer_ms: 1000,
    })
    service = await openTestApi({ models, objects })
  })
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]()
    await relay?.[Symbol.asyncDispose]()
    await rm(models, { recursive: true, force: true })
  })

  const rows = Array.from({ length: 12 }, (_, i) =>
    JSON.stringify({ prompt: `Cat ${i} said`, completion: ` hello ${i * 7}.` }),
  ).join('\n')
  const create = async () => {
    const training_file = await service.upload(`${rows}\n`)
    const { status, body } = await service.post('/v1/fine_tuning/jobs', {
      model: 'stories260k',
      training_file,
      seed: 11,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs: 4, batch_size: 2 } },
      },
    })
    expect(status).toBe(200)
    return { id: body.id as string, training_file }
  }
  const job = async (id: string) => (await service.get(`/v1/fine_tuning/jobs/${id}`)).body
  const events = async (id: string): Promise<{ message: string; id: string }[]> =>
    (await service.get(`/v1/fine_tuning/jobs/${id}/events?limit=100`)).body.data
  const until = async (id: string, done: () => Promise<boolean>) => {
    for (const end = Date.now() + 60_000; !(await done()); await sleep(20))
      if (Date.now() > end) {
        // Whoever stops the worker would wait for its patience to end.
        await relay.restore()
        throw new Error(`It did not come to that: ${JSON.stringify(await events(id), null, 1)}`)
      }
  }
  const adapters = async (id: string) => {
    const sql =
      'select step_number, adapter_sha256 from fine_tuning_checkpoints where job_id = $1 order by 1'
    return (await service.db.query(sql, [id])).rows
  }
  const train = () =>
    startTraining({
      stores: service.stores,
      models: service.models,
      cache: join(service.folder, 'weights'),
      precision: 'auto',
      log: testLog,
      adapterFile: service.adapterFile,
      serving: service.serving,
      pool: service.pool,
      compute: { device: 'cpu', threads: availableParallelism() },
      folders: [service.folder],
      lease_seconds: 10,
      poll_seconds: 0.5,
    })

  test(`a job whose store is away for ${seconds} s at five points ends as an undisturbed one`, async () => {
    const undisturbed = await create()
    {
      await using _first = train()
      await until(undisturbed.id, async () => (await job(undisturbed.id)).status === 'succeeded')
    }

    const { id } = await create()
    const told = (text: RegExp) => async () => (await events(id)).some((e) => text.test(e.message))
    // Before it has its file; while it starts; while it saves states and checkpoints; at its end.
    const points = [
      async () => true,
      told(/^Fine-tuning job started/),
      told(/^Step 3\/24/),
      told(/^Step 12\/24/),
      told(/^Step 22\/24/),
    ]
    // The cache would spare it the first.
    await rm(join((service.place as { cache: string }).cache, 'copies'), { recursive: true })
    await relay.cut()
    await using _ = train()
    for (const [i, reached] of points.entries()) {
      await until(id, reached)
      if (i % 2) relay.stall()
      else if (i > 0) await relay.cut()
      await sleep(seconds * 1000)
      expect((await job(id)).status).not.toBe('failed')
      await relay.restore()
    }
    await until(id, async () => (await job(id)).status === 'succeeded')
    expect(await adapters(id)).toEqual(await adapters(undisturbed.id))
    const messages = (await events(id)).map((event) => event.message)
    expect(new Set(messages).size).toBe(messages.length)
    expect(messages.length).toBe((await events(undisturbed.id)).length)
    const { rows: work } = await service.db.query('select faults from work where id = $1', [id])
    expect(work).toEqual([{ faults: 0 }])
  }, 900_000)

  test.each(['cut', 'stall'] as const)(
    'requests meanwhile (%s) get 503 with Retry-After',
    async (how) => {
      const { training_file, id } = await create()
      await relay[how]()
      const form = new FormData()
      form.append('purpose', 'user_data')
      form.append('file', new Blob(['x']), 'x.txt')
      const encoded = new Response(form)
      const payload = Buffer.from(await encoded.arrayBuffer())
      const began = Date.now()
      for (const request of [
        { method: 'GET', url: `/v1/files/${training_file}/content` },
        {
          method: 'POST',
          url: '/v1/files',
          payload,
          headers: { 'content-type': encoded.headers.get('content-type')! },
        },
      ] as const) {
        const reply = await service.app.inject({
          ...request,
          headers: { ...bearer(service.key), ...('headers' in request && request.headers) },
        })
        expect([reply.statusCode, reply.json().error.type]).toEqual([503, 'server_error'])
        expect(Number(reply.headers['retry-after'])).toBeGreaterThan(0)
      }
      expect(Date.now() - began).toBeLessThan(15_000)
      // What needs no bytes is answered.
      expect((await service.get(`/v1/files/${training_file}`)).status).toBe(200)
      expect((await service.post(`/v1/fine_tuning/jobs/${id}/cancel`)).status).toBe(200)
      await relay.restore()
      const url = `/v1/files/${training_file}/content`
      const reply = await service.app.inject({ url, headers: bearer(service.key) })
      expect(reply.statusCode).toBe(200)
    },
  )
})
