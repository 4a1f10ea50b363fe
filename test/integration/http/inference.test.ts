// Chat and plain completions end to end: the official client, a listening server, a real model.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type InferenceServer, startInferenceServer } from '../../support/inference-server.ts'
import { shared } from '../../support/shared.ts'

// What llama2.c pins in its own test: greedy, 199 tokens from the beginning of a text.
const KNOWN = `Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so`

const model = 'stories260k'
const chat = 'stories-chat'
const stories = shared('models/stories260k')

describe.skipIf(stories.missing)('inference', () => {
  let folder: string
  let server: InferenceServer
  let client: OpenAI

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'luthier-inference-'))
    server = await startInferenceServer(stories.path, folder)
    client = server.client
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  /** What a request fails with, as the client's own error class. */
  async function failure(request: Promise<unknown>) {
    const error = await request.then(
      () => undefined,
      (error: unknown) => error,
    )
    if (!(error instanceof OpenAI.APIError)) throw new Error(`no APIError: ${error}`)
    const { status, param, code, type } = error
    return { status, param, code, type }
  }

  const messages = (content: string) => [{ role: 'user' as const, content }]

  test('greedy completion of nothing is the known story', async () => {
    const completion = await client.completions.create({
      model,
      prompt: '',
      max_tokens: 199,
      temperature: 0,
    })
    expect(completion).toMatchObject({
      object: 'text_completion',
      model,
      choices: [{ index: 0, text: KNOWN, finish_reason: 'length', logprobs: null }],
      usage: { prompt_tokens: 1, completion_tokens: 199, total_tokens: 200 },
    })
    expect(completion.id).toMatch(/^cmpl-/)
    expect(completion._request_id).toMatch(/^req_/)
  })

  test('a chat answers with a message; a stream of it says the same in pieces', async () => {
    const body = { model: chat, messages: messages(''), max_completion_tokens: 60, temperature: 0 }
    const whole = await client.chat.completions.create(body)
    expect(whole).toMatchObject({
      object: 'chat.completion',
      model: chat,
      choices: [{ index: 0, finish_reason: 'length', message: { role: 'assistant' } }],
      usage: { prompt_tokens: 1, completion_tokens: 60, total_tokens: 61 },
    })
    const text = whole.choices[0]?.message.content ?? ''
    expect(text).toBe(KNOWN.slice(0, text.length))
    expect(text.length).toBeGreaterThan(100)

    const chunks: OpenAI.ChatCompletionChunk[] = []
    const stream = await client.chat.completions.create({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    })
    for await (const chunk of stream) chunks.push(chunk)
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
    expect(chunks[0]?.choices[0]?.delta).toMatchObject({ role: 'assistant', content: '' })
    const last = chunks.pop()
    expect(last).toMatchObject({ choices: [], usage: whole.usage })
    expect(chunks.every(({ usage }) => usage === null)).toBe(true)
    expect(chunks.at(-1)?.choices[0]).toMatchObject({ delta: {}, finish_reason: 'length' })
    const pieces = chunks.map(({ choices }) => choices[0]?.delta.content ?? '')
    expect(pieces.join('')).toBe(text)
    expect(pieces.filter((piece) => piece !== '').length).toBeGreaterThan(30)
  })

  test("the client's own stream helper assembles the same message", async () => {
    const stream = client.chat.completions.stream({
      model: chat,
      messages: messages('Once upon a time'),
      max_tokens: 12,
      temperature: 0,
      stream_options: { include_usage: true },
    })
    const final = await stream.finalChatCompletion()
    const whole = await client.chat.completions.create({
      model: chat,
      messages: messages('Once upon a time'),
      max_tokens: 12,
      temperature: 0,
    })
    expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content)
    expect(final.usage?.total_tokens).toBe(whole.usage?.total_tokens)
  })

  test('a stop text ends the answer and is in no part of it', async () => {
    const body = { model, prompt: '', max_tokens: 100, temperature: 0, stop: ['park. One', '!!'] }
    const whole = await client.completions.create(body)
    const expected = KNOWN.slice(0, KNOWN.indexOf('park. One'))
    expect(whole.choices[0]).toMatchObject({ text: expected, finish_reason: 'stop' })
    let streamed = ''
    for await (const chunk of await client.completions.create({ ...body, stream: true })) {
      streamed += chunk.choices[0]?.text ?? ''
      expect(expected.startsWith(streamed)).toBe(true)
    }
    expect(streamed).toBe(expected)
  })

  test('a prompt that begins as one before is told to be cached, whole and streamed', async () => {
    const prompt = `${'The sun was warm and the cat was happy. '.repeat(8)}Then`
    const ask = { model: 'stories260k', prompt, max_tokens: 4, temperature: 0 }
    const cold = await client.completions.create(ask)
    expect(cold.usage?.prompt_tokens_details?.cached_tokens).toBe(0)
    const warm = await client.completions.create({ ...ask, prompt: `${prompt} he` })
    const cached = warm.usage!.prompt_tokens_details!.cached_tokens!
    expect(cached).toBeGreaterThanOrEqual(64)
    expect(cached).toBeLessThan(warm.usage!.prompt_tokens)
    const messages = [{ role: 'user' as const, content: prompt }]
    const chat = { model: 'stories-chat', messages, max_tokens: 4, temperature: 0 }
    const whole = await client.chat.completions.create(chat)
    let told: number | undefined
    let text = ''
    for await (const { usage, choices } of await client.chat.completions.create({
      ...chat,
      stream: true,
      stream_options: { include_usage: true },
    })) {
      told ??= usage?.prompt_tokens_details?.cached_tokens
      text += choices[0]?.delta.content ?? ''
    }
    expect(told).toBeGreaterThanOrEqual(64)
    expect(text).toBe(whole.choices[0]?.message.content)
  })

  test('what was said before is guessed again, and batch_invariant answers guess nothing', async () => {
    const counted = async (): Promise<{ accepted: number; steps: number }> => {
      const page = await (await fetch(client.baseURL.replace(/v1$/, 'metrics'))).text()
      const of = (name: string) => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(page)?.[1] ?? 0)
      return {
        accepted: of('vllm:spec_decode_num_accepted_tokens_total'),
        steps: of('luthier_decode_steps_total'),
      }
    }
    const prompt = 'Tom had a red ball. Lily had a red ball. '.repeat(4)
    const ask = { model, prompt, max_tokens: 100, temperature: 0 }
    const before = await counted()
    const exact = await client.completions.create({ ...ask, batch_invariant: true } as typeof ask)
    const between = await counted()
    expect(between).toEqual({ accepted: before.accepted, steps: before.steps + 99 })
    const guessed = await client.completions.create(ask)
    expect(guessed.choices).toEqual(exact.choices)
    const after = await counted()
    // Whether a guess pays here was measured by now, and it may not.
    expect(after.accepted).toBeGreaterThan(0)
    expect(after.steps - between.steps).toBe(99 - (after.accepted - between.accepted))
  })

  test('the same seed gives the same choices, whatever else is in the batch', async () => {
    const body = { model: chat, messages: messages('Once'), max_tokens: 24, n: 3, seed: 7 }
    const texts = async (change: object = {}) => {
      const { choices } = await client.chat.completions.create({ ...body, ...change })
      return choices.map(({ index, message }) => `${index} ${message.content}`)
    }
    const alone = await texts()
    expect(new Set(alone).size).toBe(3)
    const [again, , other] = await Promise.all([
      texts(),
      texts({ n: 4, seed: 8, top_p: 0.9 }),
      texts({ seed: 9 }),
    ])
    expect(again).toEqual(alone)
    expect(other).not.toEqual(alone)
    expect((await texts({ n: 1 }))[0]).toBe(alone[0])
  })

  test('a code point of two tokens is never cut, and a byte that is no text is U+FFFD', async () => {
    const body = { model: 'stories-bytes', prompt: '', max_tokens: 199, temperature: 0 }
    const expected = KNOWN.replaceAll(' named Lily', 'é').replaceAll(' Lily', '\ufffd')
    const whole = await client.completions.create(body)
    expect(whole.choices[0]?.text).toBe(expected)
    let streamed = ''
    for await (const chunk of await client.completions.create({ ...body, stream: true })) {
      streamed += chunk.choices[0]?.text ?? ''
      expect(expected.startsWith(streamed)).toBe(true)
    }
    expect(streamed).toBe(expected)
  })

  test('a stream with n choices has each of them whole', async () => {
    const body = { model, prompt: 'One day', n: 4, seed: 3, temperature: 1.5, max_tokens: 40 }
    const { choices } = await client.completions.create(body)
    const texts = new Array<string>(4).fill('')
    const ends = new Array<string>(4).fill('')
    for await (const chunk of await client.completions.create({ ...body, stream: true })) {
      for (const { index, text, finish_reason } of chunk.choices) {
        texts[index] += text
        ends[index] += finish_reason ?? ''
      }
    }
    expect(texts).toEqual(choices.map(({ text }) => text))
    expect(ends).toEqual(choices.map(({ finish_reason }) => finish_reason))
  })

  test('several prompts are answered in their order', async () => {
    const { choices, usage } = await client.completions.create({
      model,
      prompt: ['', 'Once upon a time'],
      n: 2,
      max_tokens: 8,
      temperature: 0,
    })
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3])
    expect(choices[0]?.text).toBe(choices[1]?.text)
    expect(choices[2]?.text).toBe(choices[3]?.text)
    expect(KNOWN.startsWith(choices[0]?.text ?? '-')).toBe(true)
    expect(`Once upon a time${choices[2]?.text}`).toBe(
      KNOWN.slice(0, 16 + (choices[2]?.text.length ?? 0)),
    )
    expect(usage?.completion_tokens).toBe(32)
  })

  test('a prompt may be token ids', async () => {
    const { choices } = await client.completions.create({
      model,
      prompt: [1, 403, 407],
      max_tokens: 8,
      temperature: 0,
    })
    expect(KNOWN).toContain(choices[0]?.text)
  })

  /** The bytes of listed tokens, joined. */
  const joined = (tokens: OpenAI.ChatCompletionTokenLogprob[]) =>
    Buffer.from(tokens.flatMap(({ bytes }) => bytes ?? [])).toString()

  test('log-probabilities: tokens join to the text, whole and streamed, and are those of the model', async () => {
    const body = {
      model: chat,
      messages: messages('One day'),
      max_tokens: 20,
      seed: 4,
      logprobs: true,
      top_logprobs: 3,
    }
    const { choices } = await client.chat.completions.create(body)
    const content = choices[0]?.logprobs?.content ?? []
    expect(content).toHaveLength(20)
    expect(joined(content)).toBe(choices[0]?.message.content)
    for (const { logprob, top_logprobs } of content) {
      const [first, second, third] = top_logprobs.map(({ logprob }) => logprob)
      expect(top_logprobs).toHaveLength(3)
      expect(first! >= second! && second! >= third! && first! >= logprob).toBe(true)
      expect(Math.exp(first!) + Math.exp(second!) + Math.exp(third!)).toBeLessThanOrEqual(1)
    }

    const streamed: OpenAI.ChatCompletionTokenLogprob[] = []
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
      const { delta, logprobs } = chunk.choices[0]!
      if (logprobs?.content) {
        streamed.push(...logprobs.content)
        expect(joined(logprobs.content)).toBe(delta.content)
      }
    }
    expect(streamed).toEqual(content)

    // The same tokens, made likely by other means, are as probable as before.
    const flat = await client.chat.completions.create({ ...body, temperature: 0, top_logprobs: 0 })
    const token = flat.choices[0]?.logprobs?.content?.[0]
    expect(token).toEqual({ ...content[0]?.top_logprobs[0], top_logprobs: [] })
  })

  test('what a stop text cut away, and the bytes of half a code point, are in no answer', async () => {
    const body = { model, prompt: '', max_tokens: 100, temperature: 0, logprobs: 0 }
    const stopped = async (stop: string) => {
      const { choices } = await client.completions.create({ ...body, stop })
      return { text: choices[0]!.text, joined: choices[0]!.logprobs?.tokens?.join('') }
    }
    const whole = await stopped(' girl named')
    expect(whole).toEqual({ text: whole.text, joined: whole.text })
    // The token ` p` is half shown: it is listed as the token it is.
    const within = await stopped('park. One')
    expect(within.joined).toBe(`${within.text}p`)
    // ` named` and ` Lily` are C3 and A9: cut behind the first.
    const cut = { ...body, model: 'stories-bytes', max_tokens: 13 }
    const half = await client.completions.create(cut)
    const before = KNOWN.slice(0, KNOWN.indexOf(' named'))
    expect(half.choices[0]).toMatchObject({ text: before, finish_reason: 'length' })
    expect(half.choices[0]?.logprobs?.tokens?.at(-1)).toBe('bytes:\\xc3')
    let streamed = ''
    for await (const chunk of await client.completions.create({ ...cut, stream: true }))
      streamed += chunk.choices[0]?.text ?? ''
    expect(streamed).toBe(before)
  })

  test('echo tells the prompt by tokens, with max_tokens 0 and nothing else too', async () => {
    const prompt = 'Once upon a time, there was a little girl'
    const ask = (change: object) =>
      client.completions.create({ model, prompt, echo: true, logprobs: 2, ...change })
    const read = (await ask({ max_tokens: 0 })).choices[0]!
    expect(read).toMatchObject({ text: prompt, finish_reason: 'length' })
    const { tokens = [], token_logprobs = [], top_logprobs = [], text_offset } = read.logprobs!
    expect(tokens[0]).toBe('<s>')
    expect(tokens.slice(1).join('')).toBe(prompt)
    expect(token_logprobs[0]).toBeNull()
    expect(token_logprobs.slice(1).every((value) => value <= 0)).toBe(true)
    expect(text_offset).toEqual(tokens.map((_, i) => tokens.slice(1, i).join('').length))
    for (const [i, row] of top_logprobs.entries())
      if (i > 0) expect(row[tokens[i]!]).toBe(token_logprobs[i])

    // The story is known: its own greedy tokens are what the prompt's last ones were.
    const told = await client.completions.create({
      model,
      prompt: '',
      temperature: 0,
      logprobs: 2,
      max_tokens: tokens.length - 1,
    })
    expect(told.choices[0]?.text).toBe(prompt)
    for (const [i, value] of (told.choices[0]?.logprobs?.token_logprobs ?? []).entries())
      expect(Math.abs(value - token_logprobs[i + 1]!)).toBeLessThan(1e-4)

    const on = (await ask({ max_tokens: 3, n: 2, temperature: 0 })).choices
    expect(on.map(({ text }) => text)).toEqual([KNOWN.slice(0, on[0]!.text.length), on[0]!.text])
    expect(on[1]?.logprobs?.tokens).toHaveLength(tokens.length + 3)
    expect(on[1]?.logprobs?.tokens?.slice(1).join('')).toBe(on[1]?.text)

    const chunks = { text: '', tokens: [] as string[], offsets: [] as number[] }
    const stream = await client.completions.create({
      model,
      prompt,
      echo: true,
      logprobs: 2,
      max_tokens: 3,
      temperature: 0,
      stream: true,
    })
    for await (const { choices } of stream) {
      chunks.text += choices[0]?.text ?? ''
      chunks.tokens.push(...(choices[0]?.logprobs?.tokens ?? []))
      chunks.offsets.push(...(choices[0]?.logprobs?.text_offset ?? []))
    }
    expect(chunks).toEqual({
      text: on[0]?.text,
      tokens: on[0]?.logprobs?.tokens,
      offsets: on[0]?.logprobs?.text_offset,
    })
  })

  test('echo of token ids, and of several prompts, keeps each to its own', async () => {
    const { choices } = await client.completions.create({
      model,
      prompt: [
        [1, 403, 407],
        [1, 403],
      ],
      echo: true,
      logprobs: 0,
      max_tokens: 1,
      temperature: 0,
    })
    expect(choices.map(({ logprobs }) => logprobs?.tokens?.length)).toEqual([4, 3])
    for (const { text } of choices) expect(KNOWN.startsWith(text)).toBe(true)
  })

  test('best_of gives the most probable by token, and counts all that were made', async () => {
    const body = {
      model,
      prompt: 'One day',
      max_tokens: 12,
      seed: 11,
      temperature: 1.2,
      logprobs: 0,
    }
    const all = await client.completions.create({ ...body, n: 5 })
    const mean = (choice: OpenAI.CompletionChoice) => {
      const values = choice.logprobs?.token_logprobs ?? []
      return values.reduce((a, b) => a + b, 0) / values.length
    }
    const sorted = all.choices.toSorted((a, b) => mean(b) - mean(a)).map(({ text }) => text)
    expect(new Set(sorted).size).toBe(5)
    const { logprobs: _, ...plain } = body
    const two = await client.completions.create({ ...plain, n: 2, best_of: 5 })
    expect(two.choices.map(({ text }) => text)).toEqual(sorted.slice(0, 2))
    expect(two.choices.map(({ index, logprobs }) => [index, logprobs])).toEqual([
      [0, null],
      [1, null],
    ])
    expect(two.usage?.completion_tokens).toBe(60)
    expect(await failure(client.completions.create({ ...body, n: 2, best_of: 1 }))).toMatchObject({
      status: 400,
      param: 'best_of',
    })
  })

  test('penalties, bias and truncation change the answer as they say', async () => {
    const body = { model, prompt: '', max_tokens: 60, temperature: 0, logprobs: 0 }
    const ask = async (change: object) =>
      (await client.completions.create({ ...body, ...change })).choices[0]!
    const repeats = (tokens: string[] = []) => tokens.length - new Set(tokens).size
    const plain = repeats((await ask({})).logprobs?.tokens)
    for (const change of [
      { frequency_penalty: 2 },
      { presence_penalty: 2 },
      { repetition_penalty: 1.5 },
    ])
      expect(repeats((await ask(change)).logprobs?.tokens)).toBeLessThan(plain)
    // 403 is ` Once`.
    expect((await ask({ logit_bias: { 403: -100 } })).text).not.toContain('Once')
    expect((await ask({ logit_bias: { 403: 100 }, max_tokens: 3 })).text).toBe('Once Once Once')
    for (const change of [{ top_k: 1 }, { min_p: 1 }])
      expect((await ask({ ...change, temperature: 2 })).text).toBe((await ask({})).text)
    expect(
      await failure(client.completions.create({ ...body, logit_bias: { 512: 1 } })),
    ).toMatchObject({ status: 400, param: 'logit_bias' })
  })

  test('chunks are padded only where that was asked for', async () => {
    const pads = async (include_obfuscation: boolean) => {
      const found: unknown[] = []
      for await (const chunk of await client.chat.completions.create({
        model: chat,
        messages: messages(''),
        max_tokens: 8,
        stream: true,
        stream_options: { include_obfuscation },
      }))
        found.push((chunk as { obfuscation?: string }).obfuscation)
      return found
    }
    expect(new Set(await pads(false))).toEqual(new Set([undefined]))
    const padded = await pads(true)
    expect(padded.every((pad) => typeof pad === 'string' && pad.length > 0)).toBe(true)
    expect(new Set(padded).size).toBeGreaterThan(padded.length / 2)
  })

  test('fields without effect are named in a header, whole and streamed', async () => {
    const body = { model: chat, messages: messages(''), max_tokens: 1 }
    const ask = async (change: object) => {
      const { response } = await client.chat.completions
        .create({ ...body, ...change })
        .withResponse()
      return response.headers.get('x-luthier-ignored')
    }
    expect(await ask({ user: 'me', service_tier: 'auto' })).toBeNull()
    for (const stream of [false, true])
      expect(await ask({ stream, verbosity: 'low', metadata: { a: 'b' }, 'größe, x': 1 })).toBe(
        'verbosity, metadata, gr%C3%B6%C3%9Fe%2C%20x',
      )
    const plain = await client.completions
      .create({ model, prompt: '', max_tokens: 1, ...{ ignore_eos: true } })
      .withResponse()
    expect(plain.response.headers.get('x-luthier-ignored')).toBe('ignore_eos')
    expect(
      await failure(client.chat.completions.create({ ...body, metadata: { a: 1 } as never })),
    ).toMatchObject({ status: 400, param: 'metadata.a' })
  })

  test('an alias answers under the name that the client used', async () => {
    const answer = await client.chat.completions.create({
      model: 'gpt-4o-mini',
      messages: messages(''),
      max_tokens: 1,
    })
    expect(answer.model).toBe('gpt-4o-mini')
  })

  test('a model without a template answers no chat', async () => {
    expect(
      await failure(client.chat.completions.create({ model, messages: messages('hi') })),
    ).toEqual({
      status: 400,
      param: 'model',
      code: 'chat_template_missing',
      type: 'invalid_request_error',
    })
  })

  test('a template that refuses the messages is a 400 about them', async () => {
    const request = client.chat.completions.create({
      model: chat,
      messages: [...messages('hi'), { role: 'tool', content: '{}', tool_call_id: 'call_1' }],
    })
    expect(await failure(request)).toMatchObject({ status: 400, param: 'messages' })
  })

  test('more than the context holds is a 400 that says what is too long, for a stream too', async () => {
    const code = 'context_length_exceeded'
    const long = 'Once upon a time '.repeat(200)
    for (const stream of [false, true]) {
      expect(
        await failure(
          client.chat.completions.create({ model: chat, messages: messages(long), stream }),
        ),
      ).toMatchObject({ status: 400, param: 'messages', code })
      expect(
        await failure(client.completions.create({ model, prompt: long, stream })),
      ).toMatchObject({ status: 400, param: 'prompt', code })
      expect(
        await failure(
          client.chat.completions.create({
            model: chat,
            messages: messages('hi'),
            max_completion_tokens: 512,
            stream,
          }),
        ),
      ).toMatchObject({ status: 400, param: 'max_completion_tokens', code })
    }
    expect(await failure(client.completions.create({ model, prompt: [1, 512] }))).toMatchObject({
      status: 400,
      param: 'prompt',
    })
  })

  test.each([true, false])(
    'clients that go away free their places (stream: %s)',
    async (stream) => {
      const story = { model, prompt: '', temperature: 1, n: 128 }
      // The server holds 256 choices, its thread decodes 8 at a time: four such requests do not fit together.
      for (let i = 0; i < 4; i++) {
        const abort = new AbortController()
        const read = (async () => {
          const body = { ...story, max_tokens: 500, stream }
          const answer = await client.completions.create(body, { signal: abort.signal })
          if (Symbol.asyncIterator in answer) for await (const _ of answer) abort.abort()
        })()
        if (!stream) setTimeout(() => abort.abort(), 100)
        await read.catch(() => {})
        expect(abort.signal.aborted).toBe(true)
        await sleep(100)
      }
      const next = await client.completions.create({ ...story, max_tokens: 2 })
      expect(next.choices).toHaveLength(128)
    },
  )

  test('more choices than the server holds are sent away with 429', async () => {
    const body = { model, prompt: '', max_tokens: 20, n: 128 }
    const answers = await Promise.allSettled([1, 2, 3].map(() => client.completions.create(body)))
    const refused = answers.filter((answer) => answer.status === 'rejected')
    expect(refused.map(({ reason }) => reason.status)).toEqual([429])
    expect(refused[0]?.reason.headers.get('retry-after')).toBe('1')
  })

  test('a reader that stops reading holds up nobody else', async () => {
    const body = { model, prompt: '', max_tokens: 400, temperature: 0, stream: true as const }
    const slow = await client.completions.create(body)
    await slow[Symbol.asyncIterator]().next()
    const quick = await client.completions.create({ ...body, stream: false, max_tokens: 20 })
    expect(KNOWN.startsWith(quick.choices[0]?.text ?? '-')).toBe(true)
    slow.controller.abort()
  })
})
