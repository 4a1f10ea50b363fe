// The limits of a key, seen by the official client.

import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'
import { suiteFolder } from '../../support/temporary.ts'

const stories = shared('models/stories260k')
const folder = suiteFolder()
let server: InferenceServer
beforeAll(async () => {
  if (stories.missing) return
  server = await startInferenceServer(stories.path, folder, {
    LUTHIER_REQUESTS_PER_MINUTE: '3',
    LUTHIER_TOKENS_PER_MINUTE: '10000',
  })
})
afterAll(() => server?.[Symbol.asyncDispose]())

const ask = (stream: boolean) =>
  server.client.completions
    .create({ model: 'stories260k', prompt: 'Once upon', max_tokens: 5, stream })
    .withResponse()

test.skipIf(stories.missing)(
  'answers tell what is left, and beyond the limit comes a 429',
  async () => {
    const { response, data } = await ask(false)
    const header = (name: string) => response.headers.get(`x-ratelimit-${name}`)
    expect([header('limit-requests'), header('limit-tokens')]).toEqual(['3', '10000'])
    expect([header('remaining-requests'), header('reset-requests')]).toEqual(['2', '20s'])
    expect(header('reset-tokens')).toMatch(/^\d+ms$/)
    const { total_tokens } = (data as OpenAI.Completion).usage!

    const streamed = await ask(true)
    const left = Number(streamed.response.headers.get('x-ratelimit-remaining-tokens'))
    expect(left).toBeLessThanOrEqual(10_000)
    expect(left).toBeGreaterThan(10_000 - 4 * total_tokens)
    expect(streamed.response.headers.get('x-ratelimit-remaining-requests')).toBe('1')
    for await (const _ of streamed.data as AsyncIterable<unknown>);

    await ask(false)
    const refused = await ask(false).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(OpenAI.RateLimitError)
    const error = refused as InstanceType<typeof OpenAI.RateLimitError>
    expect(error).toMatchObject({ status: 429, type: 'requests', code: 'rate_limit_exceeded' })
    expect(Number(error.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(error.headers.get('x-ratelimit-remaining-requests')).toBe('0')
    // What is no inference is not limited.
    expect((await server.client.models.list()).data.length).toBeGreaterThan(0)
  },
)
