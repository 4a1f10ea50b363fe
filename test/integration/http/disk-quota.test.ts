import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startService, type TestService } from '../../support/service.ts'

const LIMIT = 1_000_000
let service: TestService
beforeAll(async () => {
  service = await startService({ diskLimit: LIMIT })
  await service.app.listen({ host: '127.0.0.1', port: 0 })
})
afterAll(() => service[Symbol.asyncDispose]())

const clientOf = async () => {
  const { port } = service.app.server.address() as AddressInfo
  const apiKey = await service.keyOf('member', await service.anotherProject())
  // Retries on, as clients have them: what is refused for want of room is not sent again.
  return new OpenAI({ apiKey, baseURL: `http://127.0.0.1:${port}/v1` })
}
const upload = async (client: OpenAI, bytes: number) =>
  client.files.create({ file: await toFile(randomBytes(bytes), 'x'), purpose: 'user_data' })

test('a project that is full is told so in the words of the API, and has room again after a deletion', async () => {
  const client = await clientOf()
  const first = await upload(client, 600_000)
  const before = await service.stored()
  const began = Date.now()
  await expect(upload(client, 400_001)).rejects.toMatchObject({
    status: 429,
    type: 'insufficient_quota',
    code: 'insufficient_quota',
    message: expect.stringContaining('1000000 bytes'),
  })
  expect(Date.now() - began).toBeLessThan(5000)
  expect(await service.stored()).toEqual(before)
  await expect(
    client.uploads.create({
      filename: 'x',
      purpose: 'user_data',
      bytes: 400_001,
      mime_type: 'text/plain',
    }),
  ).rejects.toMatchObject({ code: 'insufficient_quota' })
  await upload(client, 400_000)
  await client.files.delete(first.id)
  await upload(client, 600_000)
})

test('what comes in at once counts together, and projects do not count each other', async () => {
  const [client, other] = [await clientOf(), await clientOf()]
  await upload(other, 900_000)
  const sent = await Promise.allSettled([1, 2, 3, 4, 5].map(() => upload(client, 300_000)))
  const kept = sent.filter(({ status }) => status === 'fulfilled').length
  expect(kept).toBeLessThanOrEqual(3)
  const { rows } = await service.db.query(
    'select project_id, sum(bytes)::bigint as bytes from objects group by 1',
  )
  for (const { bytes } of rows) expect(bytes).toBeLessThanOrEqual(LIMIT)
})

test('equal parts of an upload do not smuggle a large file in', async () => {
  const client = await clientOf()
  const part = randomBytes(300_000)
  const begun = await client.uploads.create({
    filename: 'x',
    purpose: 'user_data',
    bytes: 900_000,
    mime_type: 'text/plain',
  })
  const part_ids: string[] = []
  for (let i = 0; i < 3; i++)
    part_ids.push(
      (await client.uploads.parts.create(begun.id, { data: await toFile(part, 'x') })).id,
    )
  await upload(client, 300_000)
  await expect(client.uploads.complete(begun.id, { part_ids })).rejects.toMatchObject({
    code: 'insufficient_quota',
  })
})
