import { afterAll, beforeAll, expect, test } from 'vitest'
import { openTestApi, type TestApi } from '../../support/api.ts'
import { bearer } from '../../support/service.ts'

let service: TestApi
let training_file = ''
beforeAll(async () => {
  service = await openTestApi()
  training_file = await service.upload('{"prompt":"a","completion":"b"}\n'.repeat(10))
})
afterAll(() => service?.[Symbol.asyncDispose]())

async function create(idempotencyKey: string, body: object = {}, key = service.key) {
  const reply = await service.app.inject({
    method: 'POST',
    url: '/v1/fine_tuning/jobs',
    headers: { ...bearer(key), 'idempotency-key': idempotencyKey },
    payload: { model: 'tiny', training_file, ...body },
  })
  return { status: reply.statusCode, body: reply.json() }
}

const jobs = async (): Promise<number> =>
  (await service.get('/v1/fine_tuning/jobs?limit=100')).body.data.length

test('the same key and body give one job and the same answer, whatever came of the job', async () => {
  const before = await jobs()
  const first = await create('one', { suffix: 'a', seed: 3 })
  expect(first.status).toBe(200)
  await service.post(`/v1/fine_tuning/jobs/${first.body.id}/cancel`)
  expect(await create('one', { seed: 3, suffix: 'a' })).toEqual(first)
  expect(await jobs()).toBe(before + 1)
  expect((await create('another', { suffix: 'a', seed: 3 })).body.id).not.toBe(first.body.id)
})

test('the same key with another body is refused', async () => {
  const first = await create('two', { seed: 3 })
  expect(first.status).toBe(200)
  const before = await jobs()
  expect(await create('two', { seed: 4 })).toMatchObject({
    status: 400,
    body: { error: { type: 'invalid_request_error', code: 'idempotency_key_reused', param: null } },
  })
  expect(await jobs()).toBe(before)
})

test('sent ten times at once it is one job', async () => {
  const before = await jobs()
  const replies = await Promise.all(Array.from({ length: 10 }, () => create('three')))
  expect(replies.map(({ status }) => status)).toEqual(Array(10).fill(200))
  expect(new Set(replies.map(({ body }) => body.id)).size).toBe(1)
  expect(await jobs()).toBe(before + 1)
})

test('what failed may be tried again with the same key', async () => {
  expect((await create('four', { training_file: 'file-none' })).status).toBe(400)
  expect((await create('four')).status).toBe(200)
})

test('keys are of a project, and last a day', async () => {
  const first = await create('five')
  const stranger = await service.keyOf('admin', await service.anotherProject())
  expect((await create('five', {}, stranger)).body.error.code).toBe('invalid_training_file')

  await service.db.query(
    `update idempotency_keys set created_at = now() - interval '25 hours' where key = 'five'`,
  )
  const second = await create('five')
  expect(second.status).toBe(200)
  expect(second.body.id).not.toBe(first.body.id)
})

test('a key that is too long is refused', async () => {
  expect((await create('x'.repeat(256))).body.error.code).toBe('invalid_idempotency_key')
})
