import { expect, test } from 'vitest'
import type { InferEvent } from '../../../../../src/engine/infer/request.ts'
import {
  type CompletionRequest,
  presentCompletionChunks,
  toGenerations,
} from '../../../../../src/service/http/schemas/completions.ts'

const request = (change: Partial<CompletionRequest> = {}): CompletionRequest => ({
  model: 'm',
  ...change,
})

test('16 tokens unless said otherwise, none if said so', () => {
  expect(toGenerations(request(), 42)).toEqual([
    {
      prompt: { text: '' },
      max_tokens: 16,
      n: 1,
      stop: [],
      sampling: { temperature: 1, top_p: 1, seed: 42 },
    },
  ])
  expect(toGenerations(request({ max_tokens: 0 }), 0)[0]?.max_tokens).toBe(0)
})

test.each([
  ['a text', 'a', [{ text: 'a' }]],
  ['null', null, [{ text: '' }]],
  ['texts', ['a', 'b'], [{ text: 'a' }, { text: 'b' }]],
  ['tokens', [1, 2], [{ tokens: [1, 2] }]],
  ['lists of tokens', [[1], [2, 3]], [{ tokens: [1] }, { tokens: [2, 3] }]],
])('a prompt may be %s', (_, prompt, expected) => {
  expect(toGenerations(request({ prompt }), 0).map(({ prompt }) => prompt)).toEqual(expected)
})

test('a list of prompts of several kinds is a 400', () => {
  expect(() => toGenerations(request({ prompt: ['a', 1] }), 0)).toThrow(
    expect.objectContaining({ status: 400, param: 'prompt', code: 'invalid_type' }),
  )
})

test('prompts and choices together are bounded', () => {
  const prompt = new Array<string>(64).fill('a')
  expect(toGenerations(request({ prompt, n: 2 }), 0)).toHaveLength(64)
  expect(() => toGenerations(request({ prompt, n: 3 }), 0)).toThrow(
    expect.objectContaining({ status: 400, param: 'n' }),
  )
})

test.each([
  ['echo', true, false],
  ['logprobs', 0, null],
  ['best_of', 2, 1],
  ['suffix', 'x', ''],
  ['frequency_penalty', 1, 0],
  ['presence_penalty', 1, 0],
  ['logit_bias', { 1: 1 }, {}],
])('%s is refused, and accepted at its neutral value', (param, value, neutral) => {
  expect(() => toGenerations(request({ [param]: value }), 0)).toThrow(
    expect.objectContaining({ status: 400, param, code: 'unsupported_parameter' }),
  )
  expect(toGenerations(request({ [param]: neutral }), 0)).toEqual(toGenerations(request(), 0))
})

test('the best n of n are all of them', () => {
  expect(toGenerations(request({ n: 3, best_of: 3 }), 0)[0]?.n).toBe(3)
})

test('a stream gives text, then the end of each choice, then usage if asked for', async () => {
  async function* events(): AsyncGenerator<InferEvent> {
    yield { type: 'prompt', prompt_tokens: 3 }
    yield { type: 'delta', index: 0, text: 'b' }
    yield { type: 'finish', index: 0, finish_reason: 'length', completion_tokens: 1 }
  }
  const head = { id: 'cmpl-1', created: 1, model: 'm', system_fingerprint: 'fp_1' }
  const list = []
  for await (const chunk of presentCompletionChunks(head, events(), { include_usage: true }))
    list.push(chunk)
  expect(list.map(({ choices }) => choices)).toEqual([
    [{ index: 0, text: 'b', logprobs: null, finish_reason: null }],
    [{ index: 0, text: '', logprobs: null, finish_reason: 'length' }],
    [],
  ])
  expect(list.map(({ usage }) => usage?.total_tokens ?? null)).toEqual([null, null, 4])
})
