import { createHash, randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { PART_LIMIT } from '../../../src/service/files/uploads.ts'
import { checkedFetch } from '../../support/replies.ts'
import { startService, type TestService } from '../../support/service.ts'

let service: TestService
let client: OpenAI

beforeAll(async () => {
  service = await startService()
  await service.app.listen({ host: '127.0.0.1', port: 0 })
  client = clientOf(service.key)
})
afterAll(() => service[Symbol.asyncDispose]())

const clientOf = (apiKey: string) => {
  const { port } = service.app.server.address() as AddressInfo
  return new OpenAI({
    apiKey,
    baseURL: `http://127.0.0.1:${port}/v1`,
    maxRetries: 0,
    fetch: checkedFetch(service.app),
  })
}

const ROW = '{"prompt":"a","completion":"b"}\n'
const begin = (bytes: number, options: Partial<OpenAI.UploadCreateParams> = {}) =>
  client.uploads.create({
    filename: 'train.jsonl',
    purpose: 'fine-tune',
    bytes,
    mime_type: 'application/jsonl',
    ...options,
  })
const addPart = async (id: string, bytes: Uint8Array) =>
  client.uploads.parts.create(id, { data: await toFile(bytes, 'part') })

test('parts that come at once become a file in the order of the completion', async () => {
  const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => `{"prompt":"${i}"}\n`).join(''))
  const pieces = [0, 1, 2, 3].map((i) => bytes.subarray(i * 20_000, (i + 1) * 20_000))
  pieces.push(bytes.subarray(80_000))
  const upload = await begin(bytes.length)
  expect(upload).toEqual({
    id: expect.stringMatching(/^upload_\w{24}$/),
    object: 'upload',
    bytes: bytes.length,
    created_at: expect.closeTo(Date.now() / 1000, -2),
    expires_at: upload.created_at + 3600,
    filename: 'train.jsonl',
    purpose: 'fine-tune',
    status: 'pending',
  })
  const parts = await Promise.all(pieces.toReversed().map((piece) => addPart(upload.id, piece)))
  expect(parts[0]).toEqual({
    id: expect.stringMatching(/^part_\w{24}$/),
    object: 'upload.part',
    created_at: expect.any(Number),
    upload_id: upload.id,
  })
  const done = await client.uploads.complete(upload.id, {
    part_ids: parts.toReversed().map((part) => part.id),
    md5: createHash('md5').update(bytes).digest('hex'),
  })
  expect(done).toMatchObject({ id: upload.id, status: 'completed' })
  expect(done.file).toEqual(await client.files.retrieve(done.file!.id))
  expect(done.file).toMatchObject({
    object: 'file',
    bytes: bytes.length,
    filename: 'train.jsonl',
    purpose: 'fine-tune',
    status: 'processed',
  })
  const content = await client.files.content(done.file!.id)
  expect(Buffer.from(await content.arrayBuffer()).equals(bytes)).toBe(true)
  // The parts are no more.
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  expect(await service.stored()).toEqual([`${service.project_id}/${sha256}`])
  for (const attempt of [
    () => addPart(upload.id, Buffer.from('x')),
    () => client.uploads.complete(upload.id, { part_ids: parts.map((part) => part.id) }),
    () => client.uploads.cancel(upload.id),
  ])
    await expect(attempt()).rejects.toMatchObject({ status: 400, code: 'upload_completed' })
  await client.files.delete(done.file!.id)
  expect(await service.stored()).toEqual([])
})

test('a completion that is refused changes nothing, and the upload goes on', async () => {
  const text = Buffer.from(ROW.repeat(2))
  const upload = await begin(text.length)
  const [a, b] = [
    await addPart(upload.id, text.subarray(0, 10)),
    await addPart(upload.id, text.subarray(10)),
  ]
  const complete = (part_ids: string[], md5?: string) =>
    client.uploads.complete(upload.id, { part_ids, ...(md5 !== undefined && { md5 }) })
  for (const [attempt, error] of [
    [() => complete([a.id]), { param: 'part_ids', code: 'bytes_mismatch' }],
    [() => complete([a.id, a.id]), { param: 'part_ids[1]' }],
    [() => complete([a.id, 'part_none']), { param: 'part_ids[1]' }],
    [() => complete([]), { param: 'part_ids' }],
    [() => complete([a.id, b.id], '0'.repeat(32)), { param: 'md5', code: 'md5_mismatch' }],
  ] as const)
    await expect(attempt()).rejects.toMatchObject({ status: 400, ...error })
  const md5 = createHash('md5').update(text).digest('base64')
  expect((await complete([a.id, b.id], md5)).status).toBe('completed')
})

test('what becomes of the parts is judged as any upload', async () => {
  const upload = await begin(3, { expires_after: { anchor: 'created_at', seconds: 7200 } })
  const part = await addPart(upload.id, Buffer.from('a,b'))
  const { file } = await client.uploads.complete(upload.id, { part_ids: [part.id] })
  expect(file).toMatchObject({ status: 'error', expires_at: file!.created_at + 7200 })
})

test.each<[string, Partial<OpenAI.UploadCreateParams>, object]>([
  ['more than 8 GB', { bytes: 8 * 1024 ** 3 + 1 }, { param: 'bytes' }],
  ['no bytes', { bytes: 0 }, { param: 'bytes' }],
  ['a name that is no .jsonl', { filename: 'a.csv' }, { param: 'filename' }],
  ['an unknown purpose', { purpose: 'fun' as 'batch' }, { param: 'purpose' }],
  [
    'too short a life',
    { expires_after: { anchor: 'created_at', seconds: 5 } },
    { param: 'expires_after.seconds' },
  ],
])('an upload of %s is refused', async (_, options, error) => {
  await expect(begin(10, options)).rejects.toMatchObject({ status: 400, ...error })
})

test('a part of more than 64 MB is refused, one of 64 MB is taken', async () => {
  const before = await service.stored()
  const upload = await begin(PART_LIMIT)
  const bytes = randomBytes(PART_LIMIT + 1)
  await expect(addPart(upload.id, bytes)).rejects.toMatchObject({
    status: 413,
    code: 'part_too_large',
  })
  expect(await service.stored()).toEqual(before)
  await addPart(upload.id, bytes.subarray(1))
  await client.uploads.cancel(upload.id)
  expect(await service.stored()).toEqual(before)
})

test('a cancelled upload forgets its parts and takes no more', async () => {
  const before = await service.stored()
  const upload = await begin(100)
  const part = await addPart(upload.id, randomBytes(50))
  expect(await client.uploads.cancel(upload.id)).toMatchObject({ status: 'cancelled' })
  expect(await service.stored()).toEqual(before)
  for (const attempt of [
    () => addPart(upload.id, randomBytes(50)),
    () => client.uploads.complete(upload.id, { part_ids: [part.id] }),
    () => client.uploads.cancel(upload.id),
  ])
    await expect(attempt()).rejects.toMatchObject({ status: 400, code: 'upload_cancelled' })
})

test('an expired upload takes no more at once, and is swept with its parts later', async () => {
  const before = await service.stored()
  const upload = await begin(100)
  await addPart(upload.id, randomBytes(100))
  const age = (interval: string) =>
    service.db.query(
      `update uploads set expires_at = now() - interval '${interval}' where id = $1`,
      [upload.id],
    )
  await age('1 second')
  await expect(client.uploads.cancel(upload.id)).rejects.toMatchObject({ code: 'upload_expired' })
  await expect(addPart(upload.id, randomBytes(1))).rejects.toMatchObject({ code: 'upload_expired' })
  await service.uploads.sweep()
  expect(await service.stored()).toHaveLength(before.length + 1)
  await age('2 hours')
  await service.uploads.sweep()
  expect(await service.stored()).toEqual(before)
})

test('two completions at once make one file', async () => {
  const upload = await begin(ROW.length)
  const part = await addPart(upload.id, Buffer.from(ROW))
  const before = (await client.files.list()).data.length
  const both = await Promise.allSettled(
    [1, 2].map(() => client.uploads.complete(upload.id, { part_ids: [part.id] })),
  )
  expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  expect((await client.files.list()).data).toHaveLength(before + 1)
})

test('no other project sees an upload', async () => {
  const upload = await begin(ROW.length)
  const other = clientOf(await service.keyOf('admin', await service.anotherProject()))
  for (const attempt of [
    async () =>
      other.uploads.parts.create(upload.id, { data: await toFile(Buffer.from('x'), 'p') }),
    () => other.uploads.complete(upload.id, { part_ids: ['part_x'] }),
    () => other.uploads.cancel(upload.id),
  ])
    await expect(attempt()).rejects.toMatchObject({ status: 404 })
})
