// SIGTERM to a server that trains, streams and is being sent a file; then a second one.

import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')

let server: LuthierServer
let client: OpenAI
beforeAll(async () => {
  if (stories.missing) return
  // On embedded parts: one of the phases is the end of the database.
  server = await startLuthier(makeHome({ stories260k: stories.path }), { DATABASE_URL: '' })
  client = new OpenAI({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 })
})
afterAll(() => server?.[Symbol.asyncDispose]())

/** An upload that never comes to its end. */
const slowUpload = () => {
  const upload = request(`${server.baseURL}/files`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${server.apiKey}`,
      'content-type': 'multipart/form-data; boundary=cut',
    },
  })
  upload.on('error', () => {})
  upload.write('--cut\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{')
  return upload
}

const logged = (found: (line: Record<string, unknown>) => boolean) =>
  vi.waitUntil(() => server.log().some(found), { timeout: 60_000, interval: 20 })

test.skipIf(stories.missing)(
  'SIGTERM: the running step is kept, the stream is finished, and each phase is logged in order',
  async () => {
    const row = JSON.stringify({ prompt: 'Once upon', completion: ' a time there was a cat' })
    const file = await client.files.create({
      file: await toFile(Buffer.from(`${row}\n`.repeat(64)), 'rows.jsonl'),
      purpose: 'fine-tune',
    })
    const job = await client.fineTuning.jobs.create({
      model: 'stories260k',
      training_file: file.id,
      method: {
        type: 'supervised',
        supervised: { hyperparameters: { n_epochs: 50, batch_size: 1 } },
      },
    })
    await logged((line) => line.msg === 'training started' && line.job === job.id)
    const stream = await client.completions.create({
      model: 'stories260k',
      prompt: 'Once upon a time',
      max_tokens: 300,
      stream: true,
    })
    let chunks = 0
    for await (const chunk of stream) {
      if (chunks++ === 0) server.signal('SIGTERM')
      if (chunk.choices[0]?.finish_reason) chunks = -chunks
    }
    expect(chunks).toBeLessThan(0)
    expect(await server.exited()).toBe(0)

    const log = server.log()
    const phases = log.filter((line) => line.msg === 'shutdown phase ended')
    expect(phases.map((line) => line.phase)).toEqual([
      'stop listening',
      'checkpoint running work',
      'finish requests',
      'stop computing',
      'close pools',
      'stop embedded Postgres',
    ])
    for (const { ms } of phases) expect(ms).toEqual(expect.any(Number))
    const at = (found: (line: Record<string, unknown>) => boolean) => log.findIndex(found)
    const givenBack = at((line) => line.msg === 'work given back' && line.work === job.id)
    expect(givenBack).toBeGreaterThan(at((line) => line.phase === 'stop listening'))
    expect(givenBack).toBeLessThan(at((line) => line.phase === 'checkpoint running work'))
    expect(log.at(-1)).toMatchObject({ msg: 'stopped' })
  },
)

test.skipIf(stories.missing)(
  'a second signal ends at once what the first one waits for, and the next start goes on',
  async () => {
    await server.start()
    const upload = slowUpload()
    await sleep(300)
    server.signal('SIGTERM')
    await logged((line) => line.phase === 'checkpoint running work')
    const began = Date.now()
    server.signal('SIGTERM')
    expect(await server.exited()).toBeNull() // of a signal, its own: no native code unwinds under a thread
    expect(Date.now() - began).toBeLessThan(3000)
    expect(server.log().map((line) => line.msg)).toContain('second signal: ending at once')
    upload.destroy()

    await server.start()
    expect((await client.files.list()).data).toHaveLength(1)
  },
)
