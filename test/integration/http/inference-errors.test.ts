// What the inference routes refuse before any model is asked.

import { afterAll, beforeAll, expect, test } from 'vitest'
import { startService, type TestService } from '../../support/service.ts'

let service: TestService

beforeAll(async () => {
  service = await startService()
})
afterAll(() => service?.[Symbol.asyncDispose]())

async function post(url: string, payload: object, authorization = `Bearer ${service.key}`) {
  const reply = await service.app.inject({
    method: 'POST',
    url,
    payload,
    headers: { authorization },
  })
  return { status: reply.statusCode, ...reply.json<{ error: object }>() }
}

const chat = { model: 'm', messages: [{ role: 'user', content: 'hi' }] }

test.each([
  ['no model', { messages: chat.messages }, 'model', 'missing_required_parameter'],
  ['a model that is a number', { ...chat, model: 5 }, 'model', 'invalid_type'],
  ['no messages', { model: 'm' }, 'messages', 'missing_required_parameter'],
  ['an empty list of messages', { ...chat, messages: [] }, 'messages', 'invalid_value'],
  ['messages that are a text', { ...chat, messages: 'hi' }, 'messages', 'invalid_type'],
  [
    'a role nobody has',
    { ...chat, messages: [{ role: 'x', content: '' }] },
    'messages[0].role',
    'invalid_value',
  ],
  [
    'content that is a number',
    { ...chat, messages: [{ role: 'user', content: 5 }] },
    'messages[0].content',
    'invalid_type',
  ],
  [
    'an image',
    {
      ...chat,
      messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }],
    },
    'messages[0].content[0].type',
    'invalid_value',
  ],
  ['a temperature above 2', { ...chat, temperature: 2.1 }, 'temperature', 'invalid_value'],
  ['a temperature in words', { ...chat, temperature: 'hot' }, 'temperature', 'invalid_type'],
  ['a top_p above 1', { ...chat, top_p: 1.01 }, 'top_p', 'invalid_value'],
  ['no choices', { ...chat, n: 0 }, 'n', 'invalid_value'],
  ['more choices than 128', { ...chat, n: 129 }, 'n', 'invalid_value'],
  ['five stop texts', { ...chat, stop: ['a', 'b', 'c', 'd', 'e'] }, 'stop', 'invalid_value'],
  ['a stop text that is a number', { ...chat, stop: 5 }, 'stop', 'invalid_type'],
  ['a broken seed', { ...chat, seed: 1.5 }, 'seed', 'invalid_type'],
  ['no tokens', { ...chat, max_tokens: 0 }, 'max_tokens', 'invalid_value'],
  [
    'two token limits',
    { ...chat, max_tokens: 1, max_completion_tokens: 2 },
    'max_tokens',
    'invalid_value',
  ],
  [
    'stream options without a stream',
    { ...chat, stream_options: { include_usage: true } },
    'stream_options',
    'invalid_value',
  ],
  ['alternatives alone', { ...chat, top_logprobs: 2 }, 'top_logprobs', 'invalid_value'],
  [
    '21 alternatives',
    { ...chat, logprobs: true, top_logprobs: 21 },
    'top_logprobs',
    'invalid_value',
  ],
  [
    'an answer in a form that there is not',
    { ...chat, response_format: { type: 'yaml' } },
    'response_format.type',
    'invalid_value',
  ],
  [
    'a call where there is no tool',
    { ...chat, tool_choice: 'required' },
    'tool_choice',
    'invalid_value',
  ],
  ['a penalty of 3', { ...chat, presence_penalty: 3 }, 'presence_penalty', 'invalid_value'],
  [
    'a repetition penalty of 0',
    { ...chat, repetition_penalty: 0 },
    'repetition_penalty',
    'invalid_value',
  ],
  ['a bias of 101', { ...chat, logit_bias: { 5: 101 } }, 'logit_bias[5]', 'invalid_value'],
  ['a bias that is a list', { ...chat, logit_bias: [1] }, 'logit_bias', 'invalid_type'],
  ['half a token', { ...chat, top_k: 0.5 }, 'top_k', 'invalid_type'],
])('chat: %s is a 400', async (_, body, param, code) => {
  expect(await post('/v1/chat/completions', body)).toEqual({
    status: 400,
    error: { message: expect.any(String), type: 'invalid_request_error', param, code },
  })
})

test.each([
  ['a prompt that is an object', { model: 'm', prompt: {} }, 'prompt', 'invalid_type'],
  ['no prompts', { model: 'm', prompt: [] }, 'prompt', 'invalid_value'],
  ['a prompt without tokens', { model: 'm', prompt: [[]] }, 'prompt[0]', 'invalid_value'],
  ['a negative token', { model: 'm', prompt: [-1] }, 'prompt[0]', 'invalid_value'],
  ['texts and tokens', { model: 'm', prompt: ['a', 1] }, 'prompt', 'invalid_type'],
  ['a negative limit', { model: 'm', prompt: 'a', max_tokens: -1 }, 'max_tokens', 'invalid_value'],
  ['six alternatives', { model: 'm', prompt: 'a', logprobs: 6 }, 'logprobs', 'invalid_value'],
  ['logprobs: true', { model: 'm', prompt: 'a', logprobs: true }, 'logprobs', 'invalid_type'],
  ['two of the best one', { model: 'm', n: 2, best_of: 1 }, 'best_of', 'invalid_value'],
  ['a stream of the best', { model: 'm', best_of: 2, stream: true }, 'best_of', 'invalid_value'],
  ['a suffix', { model: 'm', prompt: 'a', suffix: 'b' }, 'suffix', 'unsupported_parameter'],
])('completions: %s is a 400', async (_, body, param, code) => {
  expect(await post('/v1/completions', body)).toEqual({
    status: 400,
    error: { message: expect.any(String), type: 'invalid_request_error', param, code },
  })
})

test.each([
  ['/v1/chat/completions', chat],
  ['/v1/chat/completions', { ...chat, stream: true }],
  ['/v1/completions', { model: 'm', prompt: 'a' }],
  ['/v1/completions', { model: 'm', prompt: 'a', stream: true }],
])('%s: an unknown model is a 404, vendor extras or not', async (url, body) => {
  expect(await post(url, { ...body, top_k: 5, store: true, prediction: null })).toEqual({
    status: 404,
    error: {
      message: 'The model `m` does not exist or you do not have access to it.',
      type: 'invalid_request_error',
      param: 'model',
      code: 'model_not_found',
    },
  })
})

test('without a key nothing is answered', async () => {
  expect(await post('/v1/chat/completions', chat, 'Bearer sk-nobody')).toMatchObject({
    status: 401,
    error: { code: 'invalid_api_key' },
  })
})
