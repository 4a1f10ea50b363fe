import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { Generator } from '../../../../src/engine/infer/generate.ts'
import type { GenerateRequest, InferEvent, Target } from '../../../../src/engine/infer/request.ts'
import { only } from '../../../../src/engine/infer/sampler.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let target: Target
let generator: Generator

beforeAll(async () => {
  target = {
    model: await writeTinyModel(join(folder, 'tiny'), { chat: true }),
    cache: join(folder, 'cache'),
  }
  generator = new Generator({ threads: 1 })
})

const turn = async () => ({ [Symbol.dispose]() {} })
const ask = (part: Partial<GenerateRequest>, signal = new AbortController().signal) =>
  generator.handle(
    {
      type: 'generate',
      target,
      prompt: { text: 'abc' },
      max_tokens: 12,
      stop: [],
      n: 1,
      sampling: { temperature: 1, top_p: 1, seed: 5 },
      ...part,
    },
    { signal, turn },
  )

async function answer(part: Partial<GenerateRequest>) {
  const events: InferEvent[] = []
  for await (const event of ask(part)) events.push(event)
  const texts: string[] = []
  for (const e of events) if (e.type === 'delta') texts[e.index] = (texts[e.index] ?? '') + e.text
  return { events, texts }
}

test('an answer does not depend on who else is being answered', async () => {
  const prompts = ['abc', 'a much longer prompt, so that lengths differ', 'x', 'yes', 'no!']
  const alone = []
  for (const text of prompts) alone.push((await answer({ prompt: { text } })).texts)
  const together = await Promise.all(prompts.map((text) => answer({ prompt: { text } })))
  expect(together.map((a) => a.texts)).toEqual(alone)
})

test('short prompts that come at once are read together, and what is cached of them counts', async () => {
  let turns = 0
  const counted = async () => {
    turns++
    return turn()
  }
  const first = async (text: string) => {
    const handled = generator.handle(
      {
        type: 'generate',
        target,
        prompt: { text },
        max_tokens: 1,
        stop: [],
        n: 1,
        logprobs: 0,
        sampling: { temperature: 0, top_p: 1, seed: 1 },
      },
      { signal: new AbortController().signal, turn: counted },
    )
    const events: InferEvent[] = []
    for await (const event of handled) events.push(event)
    return listed(events).map(({ token, logprob }) => ({ token, logprob: logprob.toFixed(4) }))
  }
  const prompts = ['one', 'another', 'the third', 'of four']
  const alone = []
  for (const text of prompts) alone.push(await first(text))
  expect(turns).toBe(4)
  expect(await Promise.all(prompts.map(first))).toEqual(alone)
  expect(turns).toBe(6) // the first by itself, for it came first
  // Beginnings that are known do not make a prompt long.
  const shared = 'a beginning of more than thirty-two tokens, '
  await first(`${shared}once`)
  const longer = ['yes', 'no', 'why', 'how'].map((text) => shared + text)
  await Promise.all(longer.map(first))
  expect(turns).toBe(9)
})

test('tokens that were guessed and drawn are those that would have been drawn one by one', async () => {
  const long = {
    model: await writeTinyModel(join(folder, 'guessed'), {
      config: { max_position_embeddings: 1024 },
    }),
    cache: join(folder, 'cache'),
  }
  const plain = new Generator({ threads: 1, speculate: false })
  const guessing = new Generator({ threads: 1, speculate: 'always' })
  // Of four tokens there is soon one that has stood there before.
  const logit_bias = { 97: 60, 98: 60, 99: 60, 100: 60 }
  for (const sampling of [
    { temperature: 0, top_p: 1, seed: 1 },
    { temperature: 0.4, top_p: 1, seed: 2 },
  ]) {
    const told = async (by: Generator) => {
      const events: InferEvent[] = []
      const request: GenerateRequest = {
        type: 'generate',
        target: long,
        prompt: { text: 'one two one two one two ' },
        max_tokens: 200,
        stop: [],
        n: 1,
        logprobs: 0,
        sampling: { ...sampling, logit_bias },
      }
      const context = { signal: new AbortController().signal, turn }
      for await (const event of by.handle(request, context)) events.push(event)
      return listed(events)
    }
    const before = guessing.inside
    const guessed = await told(guessing)
    expect(guessed).toHaveLength(200)
    const drawn = await told(plain)
    expect(guessed.map(({ token }) => token)).toEqual(drawn.map(({ token }) => token))
    for (const [i, { logprob }] of guessed.entries())
      expect(logprob).toBeCloseTo(drawn[i]!.logprob, 3)
    const after = guessing.inside
    const accepted = after.guesses.accepted - before.guesses.accepted
    expect(accepted).toBeGreaterThan(5)
    expect(after.decode.steps - before.decode.steps).toBe(199 - accepted)
  }
  expect(plain.inside.guesses).toEqual({ drafted: 0, accepted: 0 })
})

test('a batch-invariant answer is the same to the last bit, whoever else is answered and whatever is cached', async () => {
  const long = {
    model: await writeTinyModel(join(folder, 'long'), {
      config: { max_position_embeddings: 1024 },
    }),
    cache: join(folder, 'cache'),
  }
  const prompt = { text: 'once upon a time there was a prompt. '.repeat(16) } // 592 tokens
  const wanted = { target: long, prompt, logprobs: 2, n: 2 }
  const others = () =>
    ['a', 'other prompts', 'x'.repeat(300)].map((text) =>
      answer({ target: long, prompt: { text }, max_tokens: 60 }),
    )
  const told = async (batch_invariant: boolean, beside: Promise<unknown>[] = []) => {
    const { events } = await answer({ ...wanted, batch_invariant })
    await Promise.all(beside)
    const cached = events.flatMap((e) => (e.type === 'finish' ? (e.cached_tokens ?? []) : []))
    return { cached, listed: [listed(events), listed(events, 1)] }
  }
  const alone = await told(true)
  expect(alone.cached).toEqual([0])
  const together = await told(true, others())
  expect(together).toEqual({ cached: [512], listed: alone.listed })
  // Without it sums are rounded otherwise: were they not, this would show nothing.
  await told(false)
  expect((await told(false, others())).listed).not.toEqual(alone.listed)
})

test('n choices differ, and the same seed gives the same ones', async () => {
  const one = await answer({ n: 3 })
  expect(new Set(one.texts).size).toBe(3)
  expect((await answer({ n: 3 })).texts).toEqual(one.texts)
  expect(one.events.filter((e) => e.type === 'finish').map((e) => e.completion_tokens)).toEqual([
    12, 12, 12,
  ])
})

test('whoever leaves frees the place at once, and the others go on', async () => {
  const abort = new AbortController()
  const leaving = ask({ max_tokens: 80 }, abort.signal)
  const staying = answer({ max_tokens: 80, prompt: { text: 'stay' } })
  await leaving.next()
  await leaving.next()
  abort.abort()
  expect((await leaving.next()).done).toBe(true)
  expect((await staying).texts).toEqual(
    (await answer({ max_tokens: 80, prompt: { text: 'stay' } })).texts,
  )
})

test('a chat is asked by the template, and what does not fit is refused with both numbers', async () => {
  const messages = [{ role: 'user', content: 'hello' }]
  const { events } = await answer({ prompt: { messages } })
  // <user>hello</s><assistant>, one token a letter and one for the end.
  expect(events[0]).toEqual({ type: 'prompt', prompt_tokens: 6 + 5 + 1 + 11 })
  await expect(answer({ max_tokens: 94 })).rejects.toMatchObject({
    status: 400,
    code: 'context_length_exceeded',
    param: 'max_tokens',
    message: expect.stringContaining('97 tokens (3 in the prompt, 94 in the completion)'),
  })
  await expect(answer({ prompt: { text: 'x'.repeat(96) } })).rejects.toMatchObject({
    code: 'context_length_exceeded',
    param: 'prompt',
  })
})

test('without max_tokens an answer ends with the context', async () => {
  const request = {
    type: 'generate' as const,
    target,
    prompt: { tokens: [97] },
    stop: [],
    n: 1,
    sampling: { temperature: 0, top_p: 1, seed: 0 },
  }
  const { signal } = new AbortController()
  const events: InferEvent[] = []
  for await (const event of generator.handle(request, { signal, turn })) events.push(event)
  // The context is 96 tokens, and one is the prompt's.
  expect(events.at(-1)).toMatchObject({ finish_reason: 'length', completion_tokens: 95 })
})

test('a model that is not there is an error of that request alone', async () => {
  const missing = { ...target, model: join(folder, 'nothing') }
  await expect(answer({ target: missing })).rejects.toThrow()
  expect((await answer({})).texts).toHaveLength(1)
})

/** What an answer's bytes come to, and what was listed. */
const listed = (events: InferEvent[], index = 0) =>
  events.flatMap((e) => (e.type === 'delta' && e.index === index ? (e.tokens ?? []) : []))

test('log-probabilities are of the model, whatever shapes the draw', async () => {
  const ask = { logprobs: 3, sampling: { temperature: 0, top_p: 1, seed: 0 } }
  const plain = listed((await answer(ask)).events)
  expect(plain).toHaveLength(12)
  for (const { token, logprob, top } of plain) {
    // Greedy: the chosen one is the first of three.
    expect(top).toHaveLength(3)
    expect(top[0]).toMatchObject({ token, logprob })
  }
  const [first, second] = plain[0]!.top
  const biased = await answer({
    ...ask,
    sampling: { ...ask.sampling, logit_bias: { [first!.bytes![0]!]: -100 } },
  })
  expect(listed(biased.events)[0]).toMatchObject({ ...second, top: plain[0]!.top })
})

test('a prompt that is given back has the log-probabilities that one token at a time would have', async () => {
  const text = 'a prompt of some length, so that it is read in more than one piece?'
  const ids = [...Buffer.from(text)]
  const { events } = await answer({ prompt: { text }, max_tokens: 0, echo: true, logprobs: 1 })
  expect(events.map(({ type }) => type)).toEqual(['prompt', 'echo', 'finish'])
  const echo = events[1]
  if (echo?.type !== 'echo') throw new Error('no echo')
  expect(echo.text).toBe(text)
  expect(echo.tokens?.map(({ offset }) => offset)).toEqual(ids.map((_, i) => i))
  expect(echo.tokens?.[0]).toMatchObject({ logprob: null, top: [] })
  for (const place of [1, 7, 40, ids.length - 1]) {
    const { events } = await answer({
      prompt: { tokens: ids.slice(0, place) },
      max_tokens: 1,
      logprobs: 1,
      sampling: { temperature: 0, top_p: 1, seed: 0, logit_bias: { [ids[place]!]: 100 } },
    })
    const told = listed(events)[0]
    expect(told?.bytes).toEqual([ids[place]])
    expect(Math.abs(told!.logprob - echo.tokens![place]!.logprob!)).toBeLessThan(1e-4)
    expect(echo.tokens![place]!.top[0]!.token).toBe(told!.top[0]!.token)
  }
})

test('every choice gets the prompt once, before its text', async () => {
  for (const max_tokens of [0, 3])
    for (const logprobs of [undefined, 0]) {
      const { events } = await answer({
        n: 3,
        max_tokens,
        echo: true,
        ...(logprobs !== undefined && { logprobs }),
      })
      for (const index of [0, 1, 2]) {
        const mine = events.filter((e) => 'index' in e && e.index === index)
        expect(mine.filter(({ type }) => type === 'echo')).toHaveLength(1)
        expect(mine[0]).toMatchObject({ type: 'echo', text: 'abc' })
        expect(mine.at(-1)).toMatchObject({ type: 'finish', completion_tokens: max_tokens })
        expect(listed(events, index)).toHaveLength(logprobs === undefined ? 0 : max_tokens)
      }
    }
})

test('an end token is told apart from the answer, and counts in its mean', async () => {
  const { events } = await answer({
    max_tokens: 5,
    logprobs: 0,
    sampling: { temperature: 0, top_p: 1, seed: 0, logit_bias: { 257: 100 } },
  })
  expect(listed(events)).toEqual([])
  const end = events.at(-1)
  if (end?.type !== 'finish') throw new Error('no end')
  expect(end).toMatchObject({ finish_reason: 'stop', completion_tokens: 1 })
  expect(end.end_token).toMatchObject({ token: '</s>', bytes: null, offset: 0 })
  expect(end.mean_logprob).toBe(end.end_token?.logprob)
})

test('a bias of what is no token of the model is a 400', async () => {
  for (const id of ['258', '-1', 'a'])
    await expect(
      answer({ sampling: { temperature: 1, top_p: 1, seed: 0, logit_bias: { [id]: 1 } } }),
    ).rejects.toMatchObject({ status: 400, param: 'logit_bias' })
})

test('a prompt that fills the context can be read, not continued', async () => {
  const prompt = { text: 'x'.repeat(96) }
  const { events } = await answer({ prompt, max_tokens: 0, echo: true, logprobs: 0 })
  expect(events[0]).toMatchObject({ prompt_tokens: 96 })
  await expect(answer({ prompt, max_tokens: 1 })).rejects.toMatchObject({ param: 'prompt' })
})

test('what cannot possibly fit is refused at once', async () => {
  const messages = Array.from({ length: 3001 }, (_, i) => ({
    role: i % 2 === 0 ? 'user' : 'assistant',
    content: 'a',
  }))
  const refused = (param: string) => ({
    status: 400,
    param,
    code: 'context_length_exceeded',
    message: expect.stringContaining(`96 tokens. However, your ${param} resulted in more than 96`),
  })
  const before = performance.now()
  await expect(answer({ prompt: { messages } })).rejects.toMatchObject(refused('messages'))
  await expect(answer({ prompt: { text: 'word '.repeat(1_400_000) } })).rejects.toMatchObject(
    refused('prompt'),
  )
  expect(performance.now() - before).toBeLessThan(5000)
}, 120_000)

test('a beginning that was read before is not read again, and changes nothing', async () => {
  const prompt = { text: 'a prompt whose first words come again and again and again: ' }
  const cached = (events: InferEvent[]) =>
    events.flatMap((e) => (e.type === 'finish' && e.index === 0 ? [e.cached_tokens] : []))
  const sampling = { temperature: 0, top_p: 1, seed: 0 }
  const fresh = { prompt, sampling, logprobs: 0, n: 2 }
  const first = await answer(fresh)
  expect(cached(first.events)).toEqual([0])
  const again = await answer(fresh)
  expect(cached(again.events)).toEqual([32])
  expect(again.texts).toEqual(first.texts)
  const means = [first, again].map(({ events }) =>
    events.flatMap((e) => (e.type === 'finish' ? [e.mean_logprob!] : [])),
  )
  for (const [i, mean] of means[0]!.entries()) expect(means[1]![i]).toBeCloseTo(mean, 4)
  // What follows an answer begins with it.
  const longer = { text: prompt.text + first.texts[0] }
  expect(cached((await answer({ prompt: longer, sampling })).events)[0]).toBeGreaterThanOrEqual(32)
})

test('a constraint leaves the tokens whose bits are set', () => {
  const logits = Float32Array.from({ length: 70 }, (_, i) => i)
  const allowed = new Int32Array(3)
  for (const id of [3, 40, 65]) allowed[id >> 5]! |= 1 << (id & 31)
  const left = only(logits, allowed)
  expect([...left.entries()].filter(([, x]) => x > -1e30).map(([id]) => id)).toEqual([3, 40, 65])
})
