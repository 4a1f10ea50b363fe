import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { Generator } from '../../../../src/engine/infer/generate.ts'
import type { GenerateRequest, InferEvent, Target } from '../../../../src/engine/infer/request.ts'
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
  generator = new Generator(1)
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
