// Plain completions on the wire: the request's shape and what it means, answers and chunks.

import { type Static, Type } from 'typebox'
import type {
  GenerateRequest,
  InferEvent,
  ListedToken,
  TokenLogprob,
} from '../../../engine/infer/request.ts'
import { invalidRequest } from '../../../errors.ts'
import type { Answer, Answers } from '../../scheduler/generations.ts'
import { type Generation, MAX_CHOICES } from '../../scheduler/serving.ts'
import {
  type AnswerHead,
  boolean,
  FinishReason,
  generationFields,
  ignoredFields,
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
    echo: boolean('Give the prompt back before the answer; with `logprobs` its tokens too.'),
    logprobs: integer(0, 5, 'Tell log-probabilities, and this many of the most probable tokens.'),
    best_of: integer(
      0,
      20,
      'Make this many and keep the `n` most probable by token. Not streamed.',
    ),
    suffix: neutral('""'),
  },
  { $id: 'CreateCompletionRequest' },
)
export type CompletionRequest = Static<typeof CompletionRequest>

const NEUTRAL = {
  suffix: [''],
}

/** Fields of a request that do nothing here. */
export const ignoredByCompletions = (body: CompletionRequest): string[] =>
  ignoredFields(body, CompletionRequest)

/** What a request asks the engine for, one generation a prompt; its `n` is what is made, not what is kept. */
export function toGenerations(body: CompletionRequest, seed: number): Generation[] {
  refuse(body, NEUTRAL)
  const prompts = toPrompts(body.prompt ?? '')
  const n = madeOf(body)
  const logprobs = body.logprobs ?? (n > keptOf(body) ? 0 : undefined)
  if (prompts.length * n > MAX_CHOICES)
    throw invalidRequest(
      `${prompts.length} prompts with ${n} choices each are more than ${MAX_CHOICES}.`,
      { param: prompts.length > MAX_CHOICES ? 'prompt' : 'n', code: 'invalid_value' },
    )
  const rest = {
    max_tokens: body.max_tokens ?? 16,
    ...samplingOf(body, seed),
    n,
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(body.echo ? { echo: true } : {}),
  }
  return prompts.map((prompt) => ({ prompt, ...rest }))
}

/** How many choices a prompt gets in the answer. */
export const keptOf = ({ n }: CompletionRequest): number => n ?? 1

/** How many choices are made for a prompt. */
export function madeOf({ n, best_of, stream }: CompletionRequest): number {
  const kept = n ?? 1
  const made = best_of || kept
  const where = { param: 'best_of', code: 'invalid_value' }
  if (made < kept)
    throw invalidRequest(`'best_of' (${made}) must be at least 'n' (${kept}).`, where)
  if (made > kept && stream)
    throw invalidRequest("Results cannot be streamed with 'best_of' greater than 'n'.", where)
  return made
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

const ROW = Type.Unsafe<Record<string, number> | null>({
  type: ['object', 'null'],
  additionalProperties: { type: 'number' },
})

const Logprobs = Type.Union(
  [
    Type.Object({
      tokens: Type.Array(Type.String()),
      token_logprobs: Type.Array(Type.Unsafe<number | null>({ type: ['number', 'null'] })),
      top_logprobs: Type.Array(ROW),
      text_offset: Type.Array(Type.Integer()),
    }),
    Type.Null(),
  ],
  {
    description:
      'Natural log-probabilities by the model, before penalties, bias, temperature and truncation. The first token of a prompt has none. The token that ends the answer is listed only with `echo`. Offsets count code points.',
  },
)

export const Completion = Type.Object(
  {
    ...head,
    object: Type.Literal('text_completion'),
    choices: Type.Array(
      Type.Object({
        index: Type.Integer(),
        text: Type.String(),
        logprobs: Logprobs,
        finish_reason: Type.Union([FinishReason, Type.Null()]),
      }),
    ),
    usage: Type.Optional(Type.Union([Usage, Type.Null()])),
  },
  { $id: 'CreateCompletionResponse' },
)
type Completion = Static<typeof Completion>

export const presentCompletion = (
  head: AnswerHead,
  answers: Answers,
  wanted: Wanted,
): Completion => ({
  ...head,
  object: 'text_completion',
  choices: answers.choices.map((answer, index) => ({
    index,
    text: (answer.echo?.text ?? '') + answer.text,
    logprobs: wanted.logprobs ? presentLogprobs(allTokens(answer)) : null,
    finish_reason: answer.finish_reason,
  })),
  usage: presentUsage(answers),
})

/** What a request asked to see. */
export interface Wanted {
  logprobs: boolean
}

type Listed = ListedToken<number | null>

/** Those of the prompt first. Who asks for it counts on one entry a token, so the end token is there too. */
function allTokens({ echo, tokens = [], end_token }: Answer): Listed[] {
  if (!echo) return tokens
  return [
    ...(echo.tokens ?? []),
    ...shifted([...tokens, ...(end_token ? [end_token] : [])], echo.text),
  ]
}

/** Offsets of an answer's tokens where a prompt stands before it. */
function shifted(tokens: readonly Listed[], prompt: string): Listed[] {
  const by = Array.from(prompt).length
  return tokens.map((token) => ({ ...token, offset: token.offset + by }))
}

const presentLogprobs = (tokens: readonly Listed[]) => ({
  tokens: tokens.map(nameOf),
  token_logprobs: tokens.map(({ logprob }) => logprob),
  top_logprobs: tokens.map((token) =>
    token.logprob === null
      ? null
      : presentRow([{ ...token, logprob: token.logprob }, ...token.top]),
  ),
  text_offset: tokens.map(({ offset }) => offset),
})

/** The chosen token is always there; of tokens that look alike the most probable speaks. */
function presentRow(tokens: readonly TokenLogprob[]): Record<string, number> {
  const row = new Map<string, number>()
  for (const token of tokens) {
    const name = nameOf(token)
    row.set(name, Math.max(row.get(name) ?? Number.NEGATIVE_INFINITY, token.logprob))
  }
  return Object.fromEntries(row)
}

/** Bytes that are no text look as this route has always written them. */
const nameOf = ({ token, bytes }: Pick<TokenLogprob, 'token' | 'bytes'>) =>
  bytes && Buffer.from(bytes).toString() !== token ? `bytes:${token}` : token

const endTokens = ({ end_token }: InferEvent & { type: 'finish' }, echo: string | undefined) =>
  end_token && echo !== undefined ? { tokens: shifted([end_token], echo) } : {}

type Reason = Completion['choices'][number]['finish_reason']

/** The chunks of a stream: text as it comes, each choice's end, at last the usage if it was asked for. */
export async function* presentCompletionChunks(
  head: AnswerHead,
  events: AsyncIterable<InferEvent>,
  { include_usage, logprobs }: Wanted & { include_usage: boolean },
): AsyncGenerator<Completion> {
  const object = 'text_completion' as const
  const usage = include_usage ? { usage: null } : {}
  const tokens = { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0 }
  const echoes = new Map<number, string>()
  const chunk = (
    index: number,
    text: string,
    { tokens, finish_reason = null }: { tokens?: readonly Listed[]; finish_reason?: Reason },
  ): Completion => ({
    ...head,
    object,
    choices: [
      { index, text, logprobs: logprobs && tokens ? presentLogprobs(tokens) : null, finish_reason },
    ],
    ...usage,
  })
  for await (const event of events) {
    switch (event.type) {
      case 'ready':
        break
      case 'prompt':
        tokens.prompt_tokens += event.prompt_tokens
        break
      case 'echo':
        echoes.set(event.index, event.text)
        yield chunk(event.index, event.text, event)
        break
      case 'delta': {
        const tokens = event.tokens && shifted(event.tokens, echoes.get(event.index) ?? '')
        if (event.text !== '' || tokens)
          yield chunk(event.index, event.text, { ...(tokens && { tokens }) })
        break
      }
      case 'finish':
        tokens.completion_tokens += event.completion_tokens
        tokens.cached_tokens += event.cached_tokens ?? 0
        yield chunk(event.index, '', {
          finish_reason: event.finish_reason,
          ...endTokens(event, echoes.get(event.index)),
        })
        break
      default:
        event satisfies never
    }
  }
  if (include_usage) yield { ...head, object, choices: [], usage: presentUsage(tokens) }
}
