// More than the server can do at once: what is too much is told so, what takes too long ends, and who does not read
// holds nobody up.

import { once } from 'node:events'
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'
import { suiteFolder } from '../../support/temporary.ts'

const stories = shared('models/stories260k')
const folder = suiteFolder()

describe.skipIf(stories.missing)('under pressure', () => {
  let server: InferenceServer
  let client: OpenAI
  beforeAll(async () => {
    server = await startInferenceServer(stories.path, folder, { LUTHIER_REQUEST_TIMEOUT: '1' })
    client = server.client
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const body = (n: number, max_tokens: number) => ({
    model: 'stories260k',
    prompt: 'Once upon a time',
    n,
    max_tokens,
    temperature: 1,
    logit_bias: { 2: -100 }, // never ends by itself
  })

  const failureOf = async (answer: Promise<unknown>) => {
    const error = await answer.catch((error: unknown) => error)
    if (!(error instanceof OpenAI.APIError)) throw new Error(`no APIError: ${error}`)
    return error
  }

  async function choicesUnderWay(): Promise<number> {
    const page = await (await fetch(new URL('/metrics', client.baseURL))).text()
    return Number(/^luthier_inference_choices (\d+)$/m.exec(page)?.[1])
  }

  async function untilFree() {
    while ((await choicesUnderWay()) > 0) await sleep(20)
  }

  test('what is not answered in time ends with 504, whole or streamed, and gives its place back', async () => {
    const late = await failureOf(client.completions.create(body(128, 480)))
    expect(late).toMatchObject({ status: 504, code: 'request_timeout', type: 'timeout' })
    expect(late.headers?.get('x-should-retry')).toBe('false')
    await untilFree()

    const stream = await client.completions.create({ ...body(128, 480), stream: true })
    let chunks = 0
    const cut = await failureOf(
      (async () => {
        for await (const _ of stream) chunks++
      })(),
    )
    expect(cut).toMatchObject({ code: 'request_timeout' })
    expect(chunks).toBeGreaterThan(0)
    await untilFree()
    expect((await client.completions.create(body(1, 5))).choices).toHaveLength(1)
  })

  test('beyond what may wait comes 429 with Retry-After', async () => {
    const first = [body(128, 480), body(128, 480)].map((body) =>
      client.completions.create(body).catch(() => {}),
    )
    while ((await choicesUnderWay()) < 256) await sleep(5)
    const refused = await failureOf(client.completions.create(body(1, 5)))
    expect(refused).toMatchObject({ status: 429, code: 'rate_limit_exceeded' })
    expect(Number(refused.headers?.get('retry-after'))).toBeGreaterThan(0)
    await Promise.all(first)
    await untilFree()
  })

  test('who does not read what was sent holds no slot: others are answered meanwhile', async () => {
    const slow = request(`${client.baseURL}/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${client.apiKey}`, 'content-type': 'application/json' },
    })
    slow.end(JSON.stringify({ ...body(16, 200), logprobs: 5, stream: true }))
    const [reply] = await once(slow, 'response')
    reply.on('error', () => {})
    reply.pause()
    // All 16 slots are the slow one's; they are free as soon as its answers are computed.
    const answer = await client.completions.create(body(1, 20))
    expect(answer.choices).toHaveLength(1)
    slow.destroy()
    await untilFree()
  })
})
