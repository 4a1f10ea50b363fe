import { afterAll, beforeAll, expect, test } from 'vitest'
import { ensureBootstrapKey, findCaller, newKey } from '../../../src/service/auth/keys.ts'
import { revokeKey } from '../../../src/service/db/keys.ts'
import { bearer, startService, type TestService } from '../../support/service.ts'

let service: TestService
beforeAll(async () => {
  service = await startService()
})
afterAll(() => service[Symbol.asyncDispose]())

const list = (headers: Record<string, string>) =>
  service.app.inject({ method: 'GET', url: '/v1/files', headers })

test.each<[string, Record<string, string>]>([
  ['no key', {}],
  ['another way to authenticate', { authorization: 'Basic abc' }],
  ['a bearer without a key', { authorization: 'Bearer ' }],
  ['a wrong key', bearer(newKey())],
])('%s is 401 in the words of OpenAI', async (_, headers) => {
  const reply = await list(headers)
  expect(reply.statusCode).toBe(401)
  expect(reply.headers['x-request-id']).toMatch(/^req_[0-9a-f]{32}$/)
  expect(reply.json().error).toMatchObject({
    type: 'invalid_request_error',
    param: null,
    code: 'invalid_api_key',
  })
})

test('a wrong key is named by its ends only', async () => {
  const key = newKey()
  const { message } = (await list(bearer(key))).json().error
  expect(message).toBe(`Incorrect API key provided: sk-****${key.slice(-4)}.`)
})

test('a key opens its project and says its organization', async () => {
  const reply = await list(bearer(service.key))
  expect(reply.statusCode).toBe(200)
  expect(reply.headers).toMatchObject({
    'openai-organization': 'luthier',
    'openai-version': '2020-10-01',
    'openai-processing-ms': expect.stringMatching(/^\d+$/),
  })
})

test('a revoked key is wrong', async () => {
  const key = await service.keyOf('member')
  const caller = await findCaller(service.db, key)
  expect((await list(bearer(key))).statusCode).toBe(200)
  expect(await revokeKey(service.db, service.project_id, caller!.key_id)).toBe(true)
  expect((await list(bearer(key))).statusCode).toBe(401)
})

test('a key that may only read changes nothing', async () => {
  const key = await service.keyOf('read')
  expect((await list(bearer(key))).statusCode).toBe(200)
  const reply = await service.app.inject({
    method: 'DELETE',
    url: '/v1/files/file-x',
    headers: bearer(key),
  })
  expect(reply.statusCode).toBe(403)
  expect(reply.json().error).toMatchObject({ code: 'insufficient_permissions' })
})

test.each([
  ['OpenAI-Organization', 'org-of-another', 401, 'mismatched_organization'],
  ['OpenAI-Organization', 'luthier', 200, undefined],
  ['OpenAI-Project', 'proj_other', 401, 'mismatched_project'],
  ['OpenAI-Project', '', 200, undefined],
])('%s: %s is answered with %i', async (header, value, status, code) => {
  const reply = await list({ ...bearer(service.key), [header]: value })
  expect(reply.statusCode).toBe(status)
  expect(reply.json().error?.code).toBe(code)
})

test('the headers may name what the key belongs to', async () => {
  const { organization_id, project_id } = service.caller
  const own = { 'OpenAI-Organization': organization_id, 'OpenAI-Project': project_id }
  expect((await list({ ...bearer(service.key), ...own })).statusCode).toBe(200)
})

test('no key is kept as it is', async () => {
  const { rows } = await service.db.query('select k::text as row from api_keys k')
  for (const { row } of rows) expect(row).not.toContain(service.key)
})

test('a key from the settings ends the one that stood there before', async () => {
  const [first, second] = [newKey(), newKey()]
  await ensureBootstrapKey(service.db, first, { replacesOthers: true })
  await ensureBootstrapKey(service.db, second, { replacesOthers: true })
  expect(await findCaller(service.db, first)).toBeUndefined()
  expect(await findCaller(service.db, second)).toMatchObject({ scope: 'admin' })
  // The setting is put back: the old key lives again, in the same project.
  const again = await ensureBootstrapKey(service.db, first, { replacesOthers: true })
  expect(again.project_id).toBe(service.project_id)
})

test('processes that start at once make one organization and one project', async () => {
  const keys = [1, 2, 3, 4].map(() => newKey())
  const callers = await Promise.all(
    keys.map((key) => ensureBootstrapKey(service.db, key, { replacesOthers: false })),
  )
  expect(new Set(callers.map((caller) => caller.project_id))).toEqual(new Set([service.project_id]))
})
