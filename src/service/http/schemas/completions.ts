// Plain completions on the wire: the request's shape and what it means, answers and chunks.

import { type Static, Type } from 'typebox'
import type { GenerateRequest, InferEvent } from '../../../engine/infer/request.ts'
import { invalidRequest } from '../../../errors.ts'
import type { Answers } from '../../scheduler/generations.ts'
import { type Generation, MAX_CHOICES } from '../../scheduler/serving.ts'
import {
  type AnswerHead,
  FinishReason,
  generationFields,
  integer,
  MAX_TOKENS,
  neutral,
  presentUsage,
  refuse,
  samplingOf,
  Usage,
} from './generation.ts'

const TOKEN = { type: 'integer', minimum: 0 }

type Prompt = string | (string | number | number[])[] | null

export const CompletionRequest = Type.Object(
  {
    ...generationFields,
    prompt: Type.Optional(
      Type.Unsafe<Prompt>({
        type: ['string', 'array', 'null'],
        minItems: 1,
        items: { type: ['string', 'integer', 'array'], minimum: 0, minItems: 1, items: TOKEN },
        description: 'A text, several texts, token ids, or several lists of token ids.',
      }),
    ),
    max_tokens: integer(0, MAX_TOKENS, 'New tokens at most. Default 16.'),
    echo: neutral('false'),
    logprobs: neutral('null'),
    best_of: neutral('the value of `n`'),
    suffix: neutral('""'),
  },
  { $id: 'CreateCompletionRequest' },
)
export type CompletionRequest = Static<typeof CompletionRequest>

const NEUTRAL = {
  echo: [false],
  logprobs: [],
  suffix: [''],
  frequency_penalty: [0],
  presence_penalty: [0],
  logit_bias: [{}],
}

/** What a request asks the engine for, one generation a prompt. */
export function toGenerations(body: CompletionRequest, seed: number): Generation[] {
  refuse(body, { ...NEUTRAL, best_of: [body.n ?? 1] })
  const prompts = toPrompts(body.prompt ?? '')
  const rest = { max_tokens: body.max_tokens ?? 16, ...samplingOf(body, seed) }
  if (prompts.length * rest.n > MAX_CHOICES)
    throw invalidRequest(
      `${prompts.length} prompts with ${rest.n} choices each are more than ${MAX_CHOICES}.`,
      { param: prompts.length > MAX_CHOICES ? 'prompt' : 'n', code: 'invalid_value' },
    )
  return prompts.map((prompt) => ({ prompt, ...rest }))
}

function toPrompts(prompt: NonNullable<Prompt>): GenerateRequest['prompt'][] {
  if (typeof prompt === 'string') return [{ text: prompt }]
  if (prompt.every((item) => typeof item === 'number')) return [{ tokens: prompt }]
  if (prompt.every((item) => typeof item === 'string')) return prompt.map((text) => ({ text }))
  if (prompt.every((item) => Array.isArray(item))) return prompt.map((tokens) => ({ tokens }))
  throw invalidRequest(
    'A list of prompts holds texts, token ids, or lists of token ids, and one kind only.',
    { param: 'prompt', code: 'invalid_type' },
  )
}

const head = {
  id: Type.String(),
  created: Type.Integer(),
  model: Type.String(),
  system_fingerprint: Type.String(),
}

export const Completion = Type.Object(
  {
    ...head,
    object: Type.Literal('text_completion'),
    choices: Type.Array(
      Type.Object({
        index: Type.Integer(),
        text: Type.String(),
        logprobs: Type.Null(),
        finish_reason: Type.Union([FinishReason, Type.Null()]),
      }),
    ),
    usage: Type.Optional(Type.Union([Usage, Type.Null()])),
  },
  { $id: 'CreateCompletionResponse' },
)
type Completion = Static<typeof Completion>

export const presentCompletion = (head: AnswerHead, answers: Answers): Completion => ({
  ...head,
  object: 'text_completion',
  choices: answers.choices.map(({ text, finish_reason }, index) => ({
    index,
    text,
    logprobs: null,
    finish_reason,
  })),
  usage: presentUsage(answers),
})

/** The chunks of a stream: text as it comes, each choice's end, at last the usage if it was asked for. */
export async function* presentCompletionChunks(
  head: AnswerHead,
  events: AsyncIterable<InferEvent>,
  { include_usage }: { include_usage: boolean },
): AsyncGenerator<Completion> {
  const object = 'text_completion' as const
  const usage = include_usage ? { usage: null } : {}
  const tokens = { prompt_tokens: 0, completion_tokens: 0 }
  const chunk = (
    index: number,
    text: string,
    finish_reason: 'stop' | 'length' | null = null,
  ): Completion => ({
    ...head,
    object,
    choices: [{ index, text, logprobs: null, finish_reason }],
    ...usage,
  })
  for await (const event of events) {
    switch (event.type) {
      case 'ready':
        break
      case 'prompt':
        tokens.prompt_tokens += event.prompt_tokens
        break
      case 'delta':
        if (event.text !== '') yield chunk(event.index, event.text)
        break
      case 'finish':
        tokens.completion_tokens += event.completion_tokens
        yield chunk(event.index, '', event.finish_reason)
        break
      default:
        event satisfies never
    }
  }
  if (include_usage) yield { ...head, object, choices: [], usage: presentUsage(tokens) }
}
