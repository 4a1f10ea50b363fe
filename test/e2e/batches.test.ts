// A batch on a real server that is killed at random moments: it goes on, and nothing is answered twice. Clients are
// answered meanwhile.

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type LuthierServer, makeHome, startLuthier } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const stories = shared('models/stories260k')
const CHAT = '/v1/chat/completions'
const LINES = 160

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what it expects
type Reply = any

const chat = (i: number) => ({
  model: 'stories260k',
  messages: [{ role: 'user', content: `A story about ${i}` }],
  max_tokens: 40,
  temperature: 1,
  seed: i,
  logit_bias: { 2: -100 },
})

describe.skipIf(stories.missing)('a batch', () => {
  let server: LuthierServer
  beforeAll(async () => {
    server = await startLuthier(makeHome({ stories260k: stories.path }))
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const send = (path: string, body?: object) => {
    const isForm = body instanceof FormData
    return fetch(`${server.baseURL}${path}`, {
      headers: {
        authorization: `Bearer ${server.apiKey}`,
        ...(body && !isForm && { 'content-type': 'application/json' }),
      },
      ...(body && { method: 'POST', body: isForm ? body : JSON.stringify(body) }),
    })
  }
  const ask = async (path: string, body?: object): Promise<Reply> => {
    const reply = await send(path, body)
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`)
    return reply.json()
  }
  const lines = async (file: string): Promise<Reply[]> =>
    (await (await send(`/files/${file}/content`)).text())
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))

  async function create(count: number): Promise<string> {
    const rows = Array.from({ length: count }, (_, i) => ({
      custom_id: `r-${i}`,
      method: 'POST',
      url: CHAT,
      body: chat(i),
    }))
    const form = new FormData()
    form.set('purpose', 'batch')
    form.set('file', new Blob([rows.map((row) => JSON.stringify(row)).join('\n')]), 'in.jsonl')
    const { id } = await ask('/files', form)
    const body = { input_file_id: id, endpoint: CHAT, completion_window: '24h' }
    return (await ask('/batches', body)).id
  }

  test('killed three times, it answers every line once, as a client is answered', async () => {
    const id = await create(LINES)
    let before = 0
    for (let kill = 1; kill <= 3; kill++) {
      for (;;) {
        const { status, request_counts } = await ask(`/batches/${id}`)
        if (status === 'completed') throw new Error('It was over before it was killed.')
        // Each time further than the last.
        if (request_counts.completed > before + 10) {
          before = request_counts.completed
          break
        }
        await sleep(20)
      }
      await server.kill()
      await server.start()
    }
    let batch: Reply
    do {
      await sleep(100)
      batch = await ask(`/batches/${id}`)
    } while (!['completed', 'failed'].includes(batch.status))
    expect(batch).toMatchObject({
      status: 'completed',
      request_counts: { total: LINES, completed: LINES, failed: 0 },
    })
    const answers = await lines(batch.output_file_id)
    expect(answers.map(({ custom_id }) => custom_id)).toEqual(
      Array.from({ length: LINES }, (_, i) => `r-${i}`),
    )
    for (const i of [0, 77, LINES - 1]) {
      const { choices } = await ask('/chat/completions', chat(i))
      expect(answers[i].response.body.choices).toEqual(choices)
    }
  })

  test('who asks over HTTP is answered while a batch runs, and one that is cancelled keeps what it has', async () => {
    const id = await create(400)
    let batch: Reply
    do {
      await sleep(20)
      batch = await ask(`/batches/${id}`)
    } while (batch.request_counts.completed === 0)
    await ask('/chat/completions', chat(1))
    expect((await ask(`/batches/${id}`)).status).toBe('in_progress')
    await ask(`/batches/${id}/cancel`, {})
    do {
      await sleep(50)
      batch = await ask(`/batches/${id}`)
    } while (batch.status === 'cancelling')
    expect(batch.status).toBe('cancelled')
    const { completed, failed } = batch.request_counts
    expect(completed + failed).toBe(400)
    expect(await lines(batch.output_file_id)).toHaveLength(completed)
    expect(await lines(batch.error_file_id)).toHaveLength(failed)
  })
})
