import { expect, test } from 'vitest'
import type { InferEvent } from '../../../../../src/engine/infer/request.ts'
import {
  type CompletionRequest,
  presentCompletion,
  presentCompletionChunks,
  toGenerations,
} from '../../../../../src/service/http/schemas/completions.ts'
import type { Answer } from '../../../../../src/service/scheduler/generations.ts'

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

test('a suffix is refused, an empty one is none', () => {
  expect(() => toGenerations(request({ suffix: 'x' }), 0)).toThrow(
    expect.objectContaining({ status: 400, param: 'suffix', code: 'unsupported_parameter' }),
  )
  expect(toGenerations(request({ suffix: '' }), 0)).toEqual(toGenerations(request(), 0))
})

test.each([
  [{ n: 3, best_of: 3 }, { n: 3 }],
  [{ n: 3, best_of: null }, { n: 3 }],
  [{ n: 2, best_of: 0 }, { n: 2 }],
  // To choose the best, probabilities are told though nobody sees them.
  [
    { n: 2, best_of: 5 },
    { n: 5, logprobs: 0 },
  ],
  [
    { best_of: 2, logprobs: 3 },
    { n: 2, logprobs: 3 },
  ],
])('%j makes %j', (change, made) => {
  const { n, logprobs } = toGenerations(request(change), 0)[0]!
  expect({ n, ...(logprobs !== undefined && { logprobs }) }).toEqual(made)
})

test('fewer than n, or a stream of the best, is a 400', () => {
  for (const change of [
    { n: 3, best_of: 2 },
    { best_of: 2, stream: true },
  ])
    expect(() => toGenerations(request(change), 0)).toThrow(
      expect.objectContaining({ status: 400, param: 'best_of' }),
    )
})

const listed = (token: string, logprob: number | null, offset: number) => ({
  token,
  bytes: [...Buffer.from(token)],
  logprob,
  offset,
  top:
    logprob === null
      ? []
      : [{ token: 'constructor', bytes: [...Buffer.from('constructor')], logprob: -0.5 }],
})

test('prompt and answer are one list of tokens, the end token too where the prompt is', () => {
  const bytes = { ...listed('\\xc3', -3, 1), bytes: [0xc3] }
  const eos = { ...listed('</s>', -2, 2), bytes: null, logprob: -2 }
  const answer = {
    text: 'b',
    finish_reason: 'stop' as const,
    tokens: [
      { ...listed('b', -1, 0), logprob: -1 },
      { ...bytes, logprob: -3 },
    ],
    end_token: eos,
  }
  const of = (choice: Answer, logprobs = true) =>
    presentCompletion(
      { id: 'cmpl-1', created: 1, model: 'm', system_fingerprint: 'fp' },
      { prompt_tokens: 2, completion_tokens: 2, cached_tokens: 0, choices: [choice] },
      { logprobs },
    ).choices[0]
  const alone = of(answer)
  expect(alone).toMatchObject({
    text: 'b',
    logprobs: {
      tokens: ['b', 'bytes:\\xc3'],
      token_logprobs: [-1, -3],
      top_logprobs: [
        { b: -1, constructor: -0.5 },
        { 'bytes:\\xc3': -3, constructor: -0.5 },
      ],
      text_offset: [0, 1],
    },
  })
  const echo = { text: '😀a', tokens: [listed('😀', null, 0), listed('a', -4, 1)] }
  expect(of({ ...answer, echo })).toMatchObject({
    text: '😀ab',
    logprobs: {
      tokens: ['😀', 'a', 'b', 'bytes:\\xc3', '</s>'],
      token_logprobs: [null, -4, -1, -3, -2],
      text_offset: [0, 1, 2, 3, 4],
    },
  })
  expect(of({ ...answer, echo }, false)).toMatchObject({ text: '😀ab', logprobs: null })
})

test('a stream gives text, then the end of each choice, then usage if asked for', async () => {
  async function* events(): AsyncGenerator<InferEvent> {
    yield { type: 'prompt', prompt_tokens: 3 }
    yield { type: 'delta', index: 0, text: 'b' }
    yield { type: 'finish', index: 0, finish_reason: 'length', completion_tokens: 1 }
  }
  const head = { id: 'cmpl-1', created: 1, model: 'm', system_fingerprint: 'fp_1' }
  const list = []
  for await (const chunk of presentCompletionChunks(head, events(), {
    include_usage: true,
    logprobs: false,
  }))
    list.push(chunk)
  expect(list.map(({ choices }) => choices)).toEqual([
    [{ index: 0, text: 'b', logprobs: null, finish_reason: null }],
    [{ index: 0, text: '', logprobs: null, finish_reason: 'length' }],
    [],
  ])
  expect(list.map(({ usage }) => usage?.total_tokens ?? null)).toEqual([null, null, 4])
})
