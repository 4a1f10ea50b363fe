import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { Type } from 'typebox'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { invalidRequest, unavailable } from '../../../src/errors.ts'
import { streamEvents } from '../../../src/service/http/sse.ts'
import { startService, type TestService } from '../../support/service.ts'

let service: TestService
let closed: string[] = []
let written = 0

beforeAll(async () => {
  service = await startService()
  const { app } = service
  app.get('/fails', async () => {
    throw new Error('secret detail')
  })
  app.get('/busy', async () => {
    throw unavailable('Try later.', 7)
  })
  app.post('/takes', { schema: { body: Type.Object({ a: Type.Integer() }) } }, async () => ({
    ok: 1,
  }))
  app.post('/empty', async ({ body }) => ({ body: body ?? null }))
  app.get('/stream', (request, reply) =>
    streamEvents(request, reply, async function* () {
      yield { n: 1 }
      yield { n: 2 }
    }),
  )
  app.get('/stream/refused', (request, reply) =>
    streamEvents(request, reply, async function* () {
      if (request.url) throw invalidRequest('No.', { param: 'n' })
      yield {}
    }),
  )
  app.get('/stream/breaks', (request, reply) =>
    streamEvents(request, reply, async function* () {
      yield { n: 1 }
      throw new Error('secret detail')
    }),
  )
  app.get('/stream/endless', (request, reply) =>
    streamEvents(request, reply, async function* (signal) {
      try {
        for (;;) {
          if (signal.aborted) return
          written++
          yield { text: 'x'.repeat(100_000) }
        }
      } finally {
        closed.push(signal.aborted ? 'gone' : 'ended')
      }
    }),
  )
  app.get('/stream/late', async (request, reply) => {
    await once(request.raw.socket, 'close')
    return streamEvents(request, reply, async function* (signal) {
      closed.push(signal.aborted ? 'gone' : 'here')
      yield {}
    })
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
})
afterAll(() => service[Symbol.asyncDispose]())

const send = (method: 'GET' | 'POST', url: string, payload?: string, type = 'application/json') =>
  service.app.inject({
    method,
    url,
    ...(payload !== undefined && { payload, headers: { 'content-type': type } }),
  })

test.each<[string, 'GET' | 'POST', string, string | undefined, number, object]>([
  [
    'a URL that leads nowhere',
    'POST',
    '/v1/nothing?x=1',
    undefined,
    404,
    { message: 'Invalid URL (POST /v1/nothing)', code: 'unknown_url' },
  ],
  [
    'a URL that cannot be read',
    'GET',
    '/v1/%zz',
    undefined,
    400,
    { type: 'invalid_request_error' },
  ],
  [
    'broken JSON',
    'POST',
    '/takes',
    '{"a":',
    400,
    { message: expect.stringContaining('could not parse the JSON body') },
  ],
  [
    'a body of another shape',
    'POST',
    '/takes',
    '{"a":"x"}',
    400,
    { param: 'a', code: 'invalid_type' },
  ],
  ['no body', 'POST', '/takes', undefined, 400, { code: 'invalid_type', param: null }],
  [
    'an error of ours',
    'GET',
    '/fails',
    undefined,
    500,
    { type: 'server_error', message: expect.not.stringContaining('secret') },
  ],
  [
    'a refusal before a stream begins',
    'GET',
    '/stream/refused',
    undefined,
    400,
    { message: 'No.', param: 'n' },
  ],
])(
  '%s has the shape of an error and a request id',
  async (_, method, url, payload, status, error) => {
    const reply = await send(method, url, payload)
    expect(reply.statusCode).toBe(status)
    expect(reply.headers['x-request-id']).toMatch(/^req_/)
    expect(reply.json()).toEqual({
      error: {
        message: expect.any(String),
        type: expect.any(String),
        param: reply.json().error.param,
        code: reply.json().error.code,
      },
    })
    expect(reply.json().error).toMatchObject(error)
  },
)

test.each<['GET' | 'POST', string, object?]>([
  ['GET', '/v1/files/%00'],
  ['GET', '/v1/files?after=%00'],
  ['GET', '/v1/files?purpose=%00'],
  ['GET', '/v1/models/%00'],
  ['GET', '/v1/fine_tuning/jobs/%00'],
  ['GET', '/v1/fine_tuning/jobs?metadata%5Bk%5D=%00'],
  ['POST', '/v1/fine_tuning/jobs', { model: 'tiny\0', training_file: 'file-x' }],
  ['POST', '/v1/chat/completions', { model: '\0', messages: [{ role: 'user', content: 'x' }] }],
])(
  '%s %s with a character that no database keeps is the mistake of the client',
  async (method, url, payload) => {
    const { key, app } = service
    const reply = await app.inject({
      method,
      url,
      headers: { authorization: `Bearer ${key}` },
      ...(payload && { payload }),
    })
    expect(reply.json()).toMatchObject({
      error: { type: 'invalid_request_error', code: 'invalid_value' },
    })
    expect(reply.statusCode).toBe(400)
  },
)

test('another content type is 415, too large a body 413', async () => {
  expect(
    (await send('POST', '/takes', 'a=1', 'application/x-www-form-urlencoded')).statusCode,
  ).toBe(415)
  const large = await send('POST', '/takes', `{"a":"${'x'.repeat(17 * 1024 * 1024)}"}`)
  expect(large.statusCode).toBe(413)
  expect(large.json().error.code).toBe('request_too_large')
})

test('an error that says when to come again keeps its header', async () => {
  const reply = await send('GET', '/busy')
  expect([reply.statusCode, reply.headers['retry-after']]).toEqual([503, '7'])
})

test('JSON with nothing in it is no body, not an error', async () => {
  expect((await send('POST', '/empty', '')).json()).toEqual({ body: null })
})

test('a stream has its frames, its end and the common headers', async () => {
  const reply = await send('GET', '/stream')
  expect(reply.body).toBe('data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n')
  expect(reply.headers).toMatchObject({
    'content-type': 'text/event-stream; charset=utf-8',
    'x-request-id': expect.stringMatching(/^req_/),
    'openai-version': '2020-10-01',
    'openai-processing-ms': expect.any(String),
  })
})

test('an error in mid-stream is a frame that tells nothing of ours', async () => {
  const { body } = await send('GET', '/stream/breaks')
  const frames = body.trim().split('\n\n')
  expect(frames).toHaveLength(2)
  expect(JSON.parse(frames[1]!.slice('data: '.length)).error).toMatchObject({
    type: 'server_error',
  })
  expect(body).not.toContain('secret')
})

test('a client that does not read holds the stream up; one that leaves ends it', async () => {
  closed = []
  written = 0
  const { port } = service.app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /stream/endless HTTP/1.1\r\nhost: x\r\n\r\n')
  await new Promise((resolve) => socket.once('readable', resolve))
  let before = -1
  while (written !== before) {
    before = written
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  // What the kernel's buffers hold and one frame more, not all there is.
  expect(written).toBeLessThan(500)
  expect(closed).toEqual([])
  socket.destroy()
  await expect.poll(() => closed, { timeout: 5000 }).toEqual(['gone'])
})

test('a client that leaves before its stream is opened is gone for it too', async () => {
  closed = []
  const { port } = service.app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /stream/late HTTP/1.1\r\nhost: x\r\n\r\n')
  setTimeout(() => socket.destroy(), 200)
  await expect.poll(() => closed, { timeout: 5000 }).toEqual(['gone'])
})

test('ready and alive need no key, the root leads to the description', async () => {
  expect((await send('GET', '/healthz')).json()).toEqual({ status: 'ok' })
  expect((await send('GET', '/readyz')).json()).toEqual({ status: 'ready' })
  expect((await send('GET', '/')).headers.location).toBe('/docs')
  expect((await send('GET', '/openapi.json')).json().openapi).toBe('3.1.0')
})

test('what is no HTTP gets the shape of an error too', async () => {
  const { port } = service.app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  socket.write('NONSENSE\r\n\r\n')
  const reply = await text(socket)
  expect(reply).toMatch(/^HTTP\/1.1 400 Bad Request\r\n/)
  expect(reply).toMatch(/\r\nx-request-id: req_\w+\r\n/)
  expect(JSON.parse(reply.split('\r\n\r\n')[1]!).error).toMatchObject({ message: 'Bad Request.' })
})
