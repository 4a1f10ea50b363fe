// How prompts are read while others are answered. The chunks of one stream come in the order in which the server made
// them, whatever the machine is busy with: the prompts of one request tell who waited for whom.

import type OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'
import { suiteFolder } from '../../support/temporary.ts'

const stories = shared('models/stories260k')
const folder = suiteFolder()

describe.skipIf(stories.missing)('prompts', () => {
  let server: InferenceServer
  let client: OpenAI
  beforeAll(async () => {
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  /** `length` tokens that no other prompt begins with. */
  const promptOf = (length: number, own: number) => [
    1,
    ...Array.from({ length: length - 1 }, (_, i) => 300 + ((own + 7 * i) % 100)),
  ]

  /** Whose token came, in order. */
  async function order(prompt: number[][], max_tokens: number): Promise<number[]> {
    const indexes: number[] = []
    const stream = await client.completions.create({
      model: 'stories260k',
      prompt,
      max_tokens,
      logprobs: 0,
      logit_bias: { 2: -100 }, // never ends by itself
      stream: true,
    })
    for await (const { choices } of stream)
      for (const { index, logprobs } of choices)
        indexes.push(...Array<number>(logprobs?.tokens?.length ?? 0).fill(index))
    expect(indexes).toHaveLength(prompt.length * max_tokens)
    return indexes
  }

  test('a long prompt is read in pieces, between which a running answer goes on', async () => {
    const LONG = 4
    const prompts = Array.from({ length: LONG }, (_, i) => promptOf(480, i))
    const indexes = await order([promptOf(4, 50), ...prompts], 30)
    const first = (index: number) => indexes.indexOf(index)
    const firsts = Array.from({ length: LONG }, (_, i) => first(i + 1)).sort((a, b) => a - b)
    const meanwhile = indexes.slice(firsts[0], firsts.at(-1)).filter((index) => index === 0)
    // Four pieces of 128 tokens each; read whole, there would be one token between two of them.
    expect(meanwhile.length).toBeGreaterThanOrEqual(3 * (LONG - 1))
  })

  test('short prompts are read together, so that their answers begin together', async () => {
    const indexes = await order(
      Array.from({ length: 9 }, (_, i) => promptOf(12, i)),
      6,
    )
    const begins = indexes.map((index, at) => indexes.indexOf(index) === at)
    const longest = Math.max(
      ...begins
        .map((begin) => (begin ? 'b' : ' '))
        .join('')
        .split(' ')
        .map((run) => run.length),
    )
    // Read one by one, those that are answered already would go on after each.
    expect(longest).toBeGreaterThanOrEqual(4)
  })
})
