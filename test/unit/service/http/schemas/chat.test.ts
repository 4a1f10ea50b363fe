import { expect, test } from 'vitest'
import type { InferEvent } from '../../../../../src/engine/infer/request.ts'
import {
  type ChatCompletionRequest,
  ignoredByChat,
  toGeneration,
} from '../../../../../src/service/http/schemas/chat.ts'
import { presentChatChunks } from '../../../../../src/service/http/schemas/chat-reply.ts'

const request = (change: Partial<ChatCompletionRequest> = {}): ChatCompletionRequest => ({
  model: 'm',
  messages: [{ role: 'user', content: 'hi' }],
  ...change,
})

test('defaults are those of the API', () => {
  expect(toGeneration(request(), 42)).toEqual({
    prompt: { messages: [{ role: 'user', content: 'hi' }] },
    stop: [],
    n: 1,
    sampling: { temperature: 1, top_p: 1, seed: 42 },
  })
})

test('null is absent', () => {
  const nulls = {
    temperature: null,
    top_p: null,
    n: null,
    seed: null,
    stop: null,
    max_tokens: null,
  }
  expect(toGeneration(request({ ...nulls, logprobs: null, tools: null }), 42)).toEqual(
    toGeneration(request(), 42),
  )
})

test('both names of the token limit work, together only when they agree', () => {
  expect(toGeneration(request({ max_tokens: 5 }), 0).max_tokens).toBe(5)
  expect(toGeneration(request({ max_completion_tokens: 6 }), 0).max_tokens).toBe(6)
  expect(toGeneration(request({ max_tokens: 6, max_completion_tokens: 6 }), 0).max_tokens).toBe(6)
  expect(() => toGeneration(request({ max_tokens: 5, max_completion_tokens: 6 }), 0)).toThrow(
    expect.objectContaining({ status: 400, param: 'max_tokens' }),
  )
})

test('one stop text and several', () => {
  expect(toGeneration(request({ stop: 'a' }), 0).stop).toEqual(['a'])
  expect(toGeneration(request({ stop: ['a', 'b'] }), 0).stop).toEqual(['a', 'b'])
  expect(() => toGeneration(request({ stop: ['a', '\ud83d'] }), 0)).toThrow(
    expect.objectContaining({ status: 400, param: 'stop' }),
  )
})

test('messages become plain texts: developer is system, parts are joined', () => {
  const { prompt } = toGeneration(
    request({
      messages: [
        { role: 'developer', content: 'be kind' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
          name: 'Ann',
        },
        { role: 'assistant', content: [{ type: 'refusal', refusal: 'no' }] },
        { role: 'assistant', content: null, refusal: 'never', tool_calls: [] },
        { role: 'assistant' },
        { role: 'tool', content: '{}', tool_call_id: 'call_1' },
      ],
    }),
    0,
  )
  expect(prompt).toEqual({
    messages: [
      { role: 'system', content: 'be kind' },
      { role: 'user', content: 'ab', name: 'Ann' },
      { role: 'assistant', content: 'no' },
      { role: 'assistant', content: 'never' },
      { role: 'assistant', content: '' },
      { role: 'tool', content: '{}', tool_call_id: 'call_1' },
    ],
  })
})

test.each([
  ['an image', [{ type: 'image_url' }], 'messages[0].content[0].type', 'invalid_value'],
  [
    'audio',
    [{ type: 'text', text: 'a' }, { type: 'input_audio' }],
    'messages[0].content[1].type',
    'invalid_value',
  ],
  ['a file', [{ type: 'file' }], 'messages[0].content[0].type', 'invalid_value'],
  [
    "a user's refusal",
    [{ type: 'refusal', refusal: 'x' }],
    'messages[0].content[0].type',
    'invalid_value',
  ],
  [
    'a text part without text',
    [{ type: 'text' }],
    'messages[0].content[0].text',
    'missing_required_parameter',
  ],
  ['no content', null, 'messages[0].content', 'missing_required_parameter'],
])('%s in a message is a 400 that names its place', (_, content, param, code) => {
  expect(() => toGeneration(request({ messages: [{ role: 'user', content }] }), 0)).toThrow(
    expect.objectContaining({ status: 400, param, code }),
  )
})

test('tool calls in a message reach the template', () => {
  const tool_calls = [{ id: 'call_1', type: 'function', function: { name: 'f', arguments: '{}' } }]
  const messages = [{ role: 'assistant' as const, content: null, tool_calls }]
  expect(toGeneration(request({ messages }), 0).prompt).toEqual({
    messages: [{ role: 'assistant', content: '', tool_calls }],
  })
})

test('a tool that may be called comes with the grammar of its arguments, one that may not is shown alone', () => {
  const tools = ['f', 'g'].map((name) => ({ type: 'function', function: { name } }))
  const named = { type: 'function', function: { name: 'g' } }
  const { prompt, tool_use } = toGeneration(request({ tools, tool_choice: named }), 0)
  expect(prompt).toMatchObject({ tools })
  expect(tool_use).toMatchObject({ required: true, parallel: true, tools: [{ name: 'g' }] })
  expect(toGeneration(request({ tools }), 0).tool_use).toMatchObject({ required: false })
  expect(toGeneration(request({ tools, tool_choice: 'none' }), 0).tool_use).toBeUndefined()
})

test.each([
  ['modalities', ['text', 'audio'], ['text']],
  ['audio', { voice: 'alloy', format: 'wav' }, null],
  ['web_search_options', {}, null],
  ['moderation', {}, null],
])('%s is refused, and accepted at its neutral value', (param, value, neutral) => {
  expect(() => toGeneration(request({ [param]: value }), 0)).toThrow(
    expect.objectContaining({ status: 400, param, code: 'unsupported_parameter' }),
  )
  expect(toGeneration(request({ [param]: neutral }), 0)).toEqual(toGeneration(request(), 0))
})

test.each([
  [{ logprobs: true }, 0],
  [{ logprobs: true, top_logprobs: null }, 0],
  [{ logprobs: true, top_logprobs: 20 }, 20],
  [{ logprobs: false, top_logprobs: 0 }, undefined],
])('%j asks for %s alternatives', (change, logprobs) => {
  expect(toGeneration(request(change), 0).logprobs).toBe(logprobs)
})

test('top_logprobs without logprobs is a 400', () => {
  for (const logprobs of [false, null])
    expect(() => toGeneration(request({ logprobs, top_logprobs: 2 }), 0)).toThrow(
      expect.objectContaining({ status: 400, param: 'top_logprobs' }),
    )
})

test.each([
  [{ store: true, metadata: { a: 'b' }, reasoning_effort: 'high' }, ['reasoning_effort']],
  [{ metadata: { a: 'b' }, verbosity: 'low' }, ['metadata', 'verbosity']],
  [{ store: false, metadata: {}, verbosity: 'medium', seed: 1 }, []],
  [{ store: null, thinking: null, user: 'u', service_tier: 'flex', prompt_cache_key: 'k' }, []],
  [{ thinking: { budget: 1 }, constructor: 1 }, ['thinking', 'constructor']],
])('%j: what does nothing is %j', (change, names) => {
  expect(ignoredByChat(request(change as Partial<ChatCompletionRequest>))).toEqual(names)
})

test('penalties, bias and the extras reach the engine as they were sent', () => {
  const fields = {
    presence_penalty: 0.5,
    frequency_penalty: -2,
    repetition_penalty: 1.2,
    logit_bias: { 5: 100 },
    top_k: 40,
    min_p: 0.1,
  }
  expect(toGeneration(request(fields), 0).sampling).toEqual({
    temperature: 1,
    top_p: 1,
    seed: 0,
    ...fields,
  })
})

async function* events(): AsyncGenerator<InferEvent> {
  yield { type: 'prompt', prompt_tokens: 3 }
  yield { type: 'delta', index: 1, text: 'b' }
  yield { type: 'delta', index: 0, text: '' }
  yield { type: 'finish', index: 1, finish_reason: 'length', completion_tokens: 1 }
  yield { type: 'finish', index: 0, finish_reason: 'stop', completion_tokens: 2 }
}
const head = { id: 'chatcmpl-1', created: 1, model: 'm', system_fingerprint: 'fp_1' }

async function chunks(include_usage: boolean) {
  const list = []
  for await (const chunk of presentChatChunks(head, events(), { n: 2, include_usage }))
    list.push(chunk)
  return list
}

test('a stream gives roles first, then text, then the end of each choice', async () => {
  const list = await chunks(false)
  expect(list.map(({ choices }) => choices)).toEqual(
    [
      { index: 0, delta: { role: 'assistant', content: '', refusal: null } },
      { index: 1, delta: { role: 'assistant', content: '', refusal: null } },
      { index: 1, delta: { content: 'b' } },
      { index: 1, delta: {}, finish_reason: 'length' },
      { index: 0, delta: {}, finish_reason: 'stop' },
    ].map((choice) => [{ logprobs: null, finish_reason: null, ...choice }]),
  )
  for (const chunk of list)
    expect(chunk).toMatchObject({ ...head, object: 'chat.completion.chunk' })
  expect(list.some((chunk) => 'usage' in chunk)).toBe(false)
})

test('tokens come with the text that they made, also where it is empty', async () => {
  const token = { token: 'a', bytes: [97], logprob: -1, top: [] }
  async function* listed(): AsyncGenerator<InferEvent> {
    yield { type: 'delta', index: 0, text: '', tokens: [{ ...token, offset: 0 }] }
    yield { type: 'delta', index: 0, text: 'ab' }
  }
  const list = []
  for await (const chunk of presentChatChunks(head, listed(), { n: 1, include_usage: false }))
    list.push(chunk.choices[0])
  const { top, ...rest } = token
  expect(list.map((choice) => choice?.logprobs)).toEqual([
    { content: [{ ...rest, top_logprobs: top }], refusal: null },
    null,
  ])
})

test('asked for, usage comes in one more chunk without choices and is null before', async () => {
  const list = await chunks(true)
  const last = list.pop()
  expect(last?.choices).toEqual([])
  expect(last?.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 })
  expect(list.every((chunk) => chunk.usage === null)).toBe(true)
})
