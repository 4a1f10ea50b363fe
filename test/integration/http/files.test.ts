import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { removeEndedCursors } from '../../../src/service/db/ended-cursors.ts'
import { onS3 } from '../../support/objects.ts'
import { checkedFetch } from '../../support/replies.ts'
import { bearer, startService, type TestService } from '../../support/service.ts'

const LIMIT = 1_000_000
let service: TestService
let client: OpenAI

beforeAll(async () => {
  service = await startService({ fileLimit: LIMIT })
  await service.app.listen({ host: '127.0.0.1', port: 0 })
  client = clientOf(service.key)
})
afterAll(() => service[Symbol.asyncDispose]())

const origin = () => {
  const { port } = service.app.server.address() as AddressInfo
  return `http://127.0.0.1:${port}`
}
const clientOf = (apiKey: string) =>
  new OpenAI({ apiKey, baseURL: `${origin()}/v1`, maxRetries: 0, fetch: checkedFetch(service.app) })

const ROW = '{"prompt":"a","completion":"b"}\n'
const upload = (
  text: string | Uint8Array,
  name = 'train.jsonl',
  purpose: OpenAI.FilePurpose = 'fine-tune',
) => toFile(Buffer.from(text), name).then((file) => client.files.create({ file, purpose }))

const stored = () => service.stored()
const countRows = async () =>
  (
    await service.db.query(
      'select (select count(*) from files) as files, (select count(*) from objects) as objects',
    )
  ).rows[0]

test('the official client uploads a stream, waits for it, reads it back and deletes it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-upload-'))
  const path = join(folder, 'größe "1".jsonl')
  const bytes = Buffer.from(ROW.repeat(20_000))
  await writeFile(path, bytes)
  // File first, purpose after, in chunks without a length: as the documentation of the client shows it.
  const file = await client.files.create({ file: createReadStream(path), purpose: 'fine-tune' })
  await rm(folder, { recursive: true })
  expect(file).toEqual({
    id: expect.stringMatching(/^file-\w{24}$/),
    object: 'file',
    bytes: bytes.length,
    created_at: expect.closeTo(Date.now() / 1000, -2),
    filename: 'größe "1".jsonl',
    purpose: 'fine-tune',
    status: 'processed',
  })
  expect(await client.files.waitForProcessing(file.id, { pollInterval: 10 })).toEqual(file)
  const content = await client.files.content(file.id)
  expect(content.headers.get('content-type')).toBe('application/jsonl')
  expect(Buffer.from(await content.arrayBuffer()).equals(bytes)).toBe(true)
  expect(await client.files.delete(file.id)).toEqual({ id: file.id, object: 'file', deleted: true })
  await expect(client.files.retrieve(file.id)).rejects.toMatchObject({
    status: 404,
    type: 'invalid_request_error',
    param: 'id',
    requestID: expect.stringMatching(/^req_/),
  })
  expect(await stored()).toEqual([])
})

test.each<[string, string | Uint8Array, RegExp]>([
  ['bytes that are no text', Buffer.from([0x7b, 0xff, 0xfe, 0x0a]), /not UTF-8/],
  ['nothing', '', /no rows/],
  ['blank lines', '\n \n', /no rows/],
  ['a JSON array', '[\n{"a":1}\n]', /line 1 is not a JSON object/],
  ['CSV', '\nprompt,completion\n', /line 2 is not a JSON object/],
])('a file for training that holds %s gets the status error', async (_, text, details) => {
  const file = await upload(text)
  expect(file.status).toBe('error')
  expect(file.status_details).toMatch(details)
  // For another purpose anything goes.
  expect(await upload(text, 'x.bin', 'user_data')).toMatchObject({ status: 'processed' })
})

test('equal bytes are two files and one object, which stays until the last of them is deleted', async () => {
  const text = `{"text":"${randomBytes(8).toString('hex')}"}`
  const [a, b] = await Promise.all([upload(text), upload(text)])
  const sha256 = createHash('sha256').update(text).digest('hex')
  expect(a.id).not.toBe(b.id)
  expect((await stored()).filter((name) => name.endsWith(sha256))).toHaveLength(1)
  await client.files.delete(a.id)
  expect(await (await client.files.content(b.id)).text()).toBe(text)
  await client.files.delete(b.id)
  expect((await stored()).join()).not.toContain(sha256)
})

const form = (fields: [string, string | Blob, string?][]) => {
  const data = new FormData()
  for (const [name, value, filename] of fields)
    if (typeof value === 'string') data.append(name, value)
    else data.append(name, value, filename)
  return data
}
const post = (data: FormData) =>
  checkedFetch(service.app)(`${origin()}/v1/files`, {
    method: 'POST',
    headers: bearer(service.key),
    body: data,
  })
const blob = new Blob([ROW])

test.each<[string, [string, string | Blob, string?][], number, object]>([
  [
    'no purpose',
    [['file', blob, 'a.jsonl']],
    400,
    { param: 'purpose', code: 'missing_required_parameter' },
  ],
  [
    'no file',
    [['purpose', 'fine-tune']],
    400,
    { param: 'file', code: 'missing_required_parameter' },
  ],
  [
    'an unknown purpose',
    [
      ['file', blob, 'a.jsonl'],
      ['purpose', 'fun'],
    ],
    400,
    { param: 'purpose', code: 'invalid_value' },
  ],
  [
    'an unknown field',
    [
      ['file', blob, 'a.jsonl'],
      ['purpose', 'fine-tune'],
      ['x', '1'],
    ],
    400,
    { param: 'x', code: 'unknown_parameter' },
  ],
  [
    'two files',
    [
      ['file', blob, 'a.jsonl'],
      ['file', blob, 'b.jsonl'],
      ['purpose', 'fine-tune'],
    ],
    400,
    { param: 'file', code: 'unknown_parameter' },
  ],
  [
    'a name that is no .jsonl',
    [
      ['file', blob, 'a.csv'],
      ['purpose', 'fine-tune'],
    ],
    400,
    { param: 'file', code: 'invalid_file_format' },
  ],
  [
    'too short a life',
    [
      ['file', blob, 'a.jsonl'],
      ['purpose', 'fine-tune'],
      ['expires_after[anchor]', 'created_at'],
      ['expires_after[seconds]', '60'],
    ],
    400,
    { param: 'expires_after.seconds', code: 'invalid_value' },
  ],
  [
    'too many bytes',
    [
      ['file', new Blob(['x'.repeat(LIMIT + 1)]), 'a.jsonl'],
      ['purpose', 'fine-tune'],
    ],
    413,
    { param: 'file', code: 'file_too_large' },
  ],
])('an upload with %s is refused and leaves nothing behind', async (_, fields, status, error) => {
  const before = [await stored(), await countRows()]
  const reply = await post(form(fields))
  expect([reply.status, ((await reply.json()) as { error: object }).error]).toMatchObject([
    status,
    error,
  ])
  expect([await stored(), await countRows()]).toEqual(before)
})

test('what is no form is 415', async () => {
  const reply = await service.app.inject({
    method: 'POST',
    url: '/v1/files',
    headers: bearer(service.key),
    payload: { a: 1 },
  })
  expect(reply.statusCode).toBe(415)
})

test('a file may expire, and is gone then', async () => {
  const file = await client.files.create({
    file: await toFile(Buffer.from(ROW), 'a.jsonl'),
    purpose: 'fine-tune',
    expires_after: { anchor: 'created_at', seconds: 3600 },
  })
  expect(file.expires_at).toBe(file.created_at + 3600)
  await service.db.query(
    `update files set expires_at = now() - interval '1 second' where id = $1`,
    [file.id],
  )
  await expect(client.files.retrieve(file.id)).rejects.toMatchObject({ status: 404 })
})

test('what has expired is swept with its bytes', async () => {
  const text = `{"text":"${randomBytes(8).toString('hex')}"}`
  const sha256 = createHash('sha256').update(text).digest('hex')
  const { id } = await upload(text)
  await service.db.query(`update files set expires_at = now() where id = $1`, [id])
  await service.files.sweep()
  expect((await stored()).join()).not.toContain(sha256)
  const { rowCount } = await service.db.query('select from objects where sha256 = $1', [sha256])
  expect(rowCount).toBe(0)
})

test.each([
  ['inside the file', (body: string) => body.slice(0, body.indexOf(ROW) + 10)],
  [
    'after the file, before the purpose',
    (body: string) => body.slice(0, body.indexOf('name="purpose"')),
  ],
])('an upload that is cut %s leaves nothing behind', async (_, cut) => {
  const before = [await stored(), await countRows()]
  const boundary = 'XX'
  const body = `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n${ROW.repeat(5000)}\r\n--${boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--${boundary}--\r\n`
  const head = [
    'POST /v1/files HTTP/1.1',
    'host: x',
    `authorization: Bearer ${service.key}`,
    `content-type: multipart/form-data; boundary=${boundary}`,
    `content-length: ${body.length}`,
  ].join('\r\n')
  const { port } = service.app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  socket.write(`${head}\r\n\r\n${cut(body)}`)
  // What is small waits in memory where there is no folder.
  if (!onS3)
    await expect
      .poll(async () => (await stored()).length, { timeout: 5000 })
      .toBe(before[0]!.length + 1)
  socket.destroy()
  await expect.poll(stored, { timeout: 5000 }).toEqual(before[0])
  expect(await countRows()).toEqual(before[1])
})

test('a form that ends too early is a 400', async () => {
  const reply = await service.app.inject({
    method: 'POST',
    url: '/v1/files',
    headers: { ...bearer(service.key), 'content-type': 'multipart/form-data; boundary=XX' },
    payload: '--XX\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\nabc',
  })
  expect([reply.statusCode, reply.json().error.code]).toEqual([400, 'incomplete_upload'])
})

test('pages walk all files of the project once, newest first or oldest first', async () => {
  const project = await service.anotherProject()
  const mine = clientOf(await service.keyOf('member', project))
  const made: string[] = []
  for (let i = 0; i < 5; i++) {
    const purpose = i % 2 ? 'user_data' : 'fine-tune'
    made.push(
      (await mine.files.create({ file: await toFile(Buffer.from(ROW), 'a.jsonl'), purpose })).id,
    )
  }
  const walk = async (query: OpenAI.FileListParams) => {
    const ids: string[] = []
    for await (const file of mine.files.list(query)) ids.push(file.id)
    return ids
  }
  expect(await walk({ limit: 2 })).toEqual(made.toReversed())
  expect(await walk({ limit: 2, order: 'asc' })).toEqual(made)
  expect(await walk({ purpose: 'user_data', limit: 1 })).toEqual([made[3], made[1]])
  const page = await (await mine.files.list({ limit: 2 }).asResponse()).json()
  expect(page).toMatchObject({ has_more: true, first_id: made[4], last_id: made[3] })

  await expect(mine.files.list({ after: 'file-none' })).rejects.toMatchObject({
    status: 400,
    param: 'after',
  })
  for (const limit of [0, 10_001, 1.5])
    await expect(mine.files.list({ limit })).rejects.toMatchObject({ status: 400, param: 'limit' })
  await expect(mine.files.list({ order: 'up' as 'asc' })).rejects.toMatchObject({
    status: 400,
    param: 'order',
  })
})

test.each(['asc', 'desc'] as const)(
  'files may be deleted while one pages over them (%s)',
  async (order) => {
    const mine = clientOf(await service.keyOf('member', await service.anotherProject()))
    const file = async () =>
      (
        await mine.files.create({
          file: await toFile(Buffer.from(ROW), 'a.jsonl'),
          purpose: 'fine-tune',
        })
      ).id
    const made = [await file(), await file(), await file(), await file(), await file()]
    const seen: string[] = []
    for await (const { id } of mine.files.list({ limit: 2, order })) {
      seen.push(id)
      await mine.files.delete(id)
    }
    expect(seen).toEqual(order === 'asc' ? made : made.toReversed())
    expect((await mine.files.list()).data).toEqual([])
    // The place is this project's alone, and kept for a day.
    await expect(client.files.list({ after: made[2]! })).rejects.toMatchObject({ status: 400 })
    await service.db.query(`update ended_cursors set ended_at = now() - interval '25 hours'`)
    await removeEndedCursors(service.db)
    await expect(mine.files.list({ after: made[2]! })).rejects.toMatchObject({ param: 'after' })
  },
)

test('a file whose hour came and that was swept is still a place to go on from', async () => {
  const mine = clientOf(await service.keyOf('member', await service.anotherProject()))
  const file = async () => toFile(Buffer.from(ROW), 'a.jsonl')
  const older = await mine.files.create({ file: await file(), purpose: 'fine-tune' })
  const newer = await mine.files.create({ file: await file(), purpose: 'fine-tune' })
  await service.db.query('update files set expires_at = now() where id = $1', [newer.id])
  await service.files.sweep()
  const { data } = await mine.files.list({ after: newer.id })
  expect(data.map(({ id }) => id)).toEqual([older.id])
})

test('a project sees no file of another', async () => {
  const file = await upload(ROW)
  const other = clientOf(await service.keyOf('admin', await service.anotherProject()))
  expect((await other.files.list()).data).toEqual([])
  for (const attempt of [
    () => other.files.retrieve(file.id),
    () => other.files.content(file.id),
    () => other.files.delete(file.id),
    () => other.files.list({ after: file.id }),
  ])
    await expect(attempt()).rejects.toMatchObject({ type: 'invalid_request_error' })
  expect((await client.files.retrieve(file.id)).id).toBe(file.id)
})
