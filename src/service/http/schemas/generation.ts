// What chat and plain completions share: sampling fields, usage, and which fields are refused.

import { type Static, type TSchema, Type } from 'typebox'
import { type ErrorWhere, invalidRequest } from '../../../errors.ts'
import type { Answers } from '../../scheduler/generations.ts'
import { MAX_CHOICES } from '../../scheduler/serving.ts'

// One schema with a list of types instead of a union: a wrong value then has one clear error.
const orNull = <T>(schema: Record<string, unknown> & { type: string | string[] }) =>
  Type.Optional(Type.Unsafe<T | null>({ ...schema, type: [schema.type, 'null'].flat() }))

/** A field whose value makes no difference here. */
export const accepted = (description = 'Accepted and ignored.') =>
  Type.Optional(Type.Unknown({ description }))

/** A field that may be sent with its neutral value only. */
export const neutral = (value: string) =>
  Type.Optional(Type.Unknown({ description: `Not supported yet: only ${value} or null.` }))

export const number = (minimum: number, maximum: number, description: string) =>
  orNull<number>({ type: 'number', minimum, maximum, description })

export const integer = (minimum: number, maximum: number, description: string) =>
  orNull<number>({ type: 'integer', minimum, maximum, description })

export const boolean = (description: string) => orNull<boolean>({ type: 'boolean', description })

export const MAX_TOKENS = 2 ** 31 - 1

/** Fields of both requests. */
export const generationFields = {
  model: Type.String({ description: 'A base model, a tuned model, a checkpoint or an alias.' }),
  temperature: number(0, 2, '0 takes the most probable token. Default 1.'),
  top_p: number(0, 1, 'Only the most probable tokens that together have this mass. Default 1.'),
  n: integer(1, MAX_CHOICES, 'How many choices. Default 1.'),
  seed: integer(-(2 ** 63), 2 ** 63, 'The same seed gives the same answer.'),
  stop: orNull<string | string[]>({
    type: ['string', 'array'],
    items: { type: 'string' },
    maxItems: 4,
    description: 'Up to four texts that end the answer; they are not part of it.',
  }),
  stream: boolean('Answer by server-sent events.'),
  stream_options: orNull<{ include_usage?: boolean | null; include_obfuscation?: boolean | null }>({
    type: 'object',
    properties: {
      include_usage: { type: ['boolean', 'null'], description: 'One more chunk with `usage`.' },
      include_obfuscation: {
        type: ['boolean', 'null'],
        description: 'Pad the chunks of a chat, so that their length tells nothing. Default false.',
      },
    },
  }),
  frequency_penalty: number(-2, 2, 'What a token of the answer loses for every time it was there.'),
  presence_penalty: number(-2, 2, 'What a token of the answer loses for having been there.'),
  logit_bias: orNull<Record<string, number>>({
    type: 'object',
    additionalProperties: { type: 'number', minimum: -100, maximum: 100 },
    description: "Added to tokens' logits, by id, after the penalties.",
  }),
  top_k: integer(-1, MAX_TOKENS, 'Only the k most probable tokens, before `top_p`. 0 or -1: all.'),
  min_p: number(0, 1, 'Only tokens at least this many times as probable as the most probable one.'),
  repetition_penalty: orNull<number>({
    type: 'number',
    exclusiveMinimum: 0,
    maximum: 100,
    description: 'Divides positive logits of tokens in prompt or answer, multiplies negative ones.',
  }),
  batch_invariant: boolean(
    'The same bytes whatever else is being answered: decoded by itself, which costs speed where others wait.',
  ),
  user: accepted(),
}

type GenerationFields = Static<ReturnType<typeof Type.Object<typeof generationFields>>>

/** Sampling and stop texts of a request; `seed` serves where the client sent none. */
export const samplingOf = (body: GenerationFields, seed: number) => ({
  n: body.n ?? 1,
  stop: stopTexts(body.stop ?? []),
  ...(body.batch_invariant ? { batch_invariant: true } : {}),
  sampling: {
    temperature: body.temperature ?? 1,
    top_p: body.top_p ?? 1,
    seed: body.seed ?? seed,
    ...sent(body, 'top_k', 'min_p', 'repetition_penalty'),
    ...sent(body, 'presence_penalty', 'frequency_penalty', 'logit_bias'),
  },
})

/** Those of the fields that the client gave a value. */
function sent<Body extends object, Name extends keyof Body>(body: Body, ...names: Name[]) {
  const fields = names.flatMap((name) => {
    const value = body[name] ?? undefined
    return value === undefined ? [] : [[name, value]]
  })
  return Object.fromEntries(fields) as { [N in Name]?: NonNullable<Body[N]> }
}

function stopTexts(stop: string | string[]): string[] {
  const texts = [stop].flat()
  if (texts.some((text) => /\p{Surrogate}/u.test(text)))
    throw invalidRequest('A stop text must be well-formed Unicode; found half a surrogate pair.', {
      param: 'stop',
      code: 'invalid_value',
    })
  return texts
}

/** Whether the last chunk of a stream carries usage. `stream_options` without `stream` is an error. */
export function includeUsage(body: GenerationFields): boolean {
  if (body.stream_options && !body.stream)
    throw invalidRequest(
      "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
      {
        param: 'stream_options',
        code: 'invalid_value',
      },
    )
  return body.stream_options?.include_usage === true
}

/** Refuses each field whose value is neither absent, null, nor among the neutral ones of `table`. */
export function refuse(
  body: Readonly<Record<string, unknown>>,
  table: Readonly<Record<string, readonly unknown[]>>,
): void {
  for (const [param, neutral] of Object.entries(table)) {
    const value = body[param] ?? undefined
    if (value === undefined) continue
    const texts = neutral.map((value) => JSON.stringify(value))
    if (texts.includes(JSON.stringify(value))) continue
    const instead = texts.length > 0 ? ` or send ${texts.join(' or ')}` : ''
    throw invalidRequest(
      `Unsupported parameter: '${param}' is not supported by this server. Leave it out${instead}.`,
      unsupported(param),
    )
  }
}

/**
 * Names of fields that do nothing here though the client may think so: those that `schema` does not know, and
 * those of `known` whose value is neither absent, null, nor neutral.
 */
export function ignoredFields(
  body: Readonly<Record<string, unknown>>,
  schema: { properties: object },
  known: Readonly<Record<string, readonly unknown[]>> = {},
): string[] {
  return Object.entries(body).flatMap(([name, value]) => {
    if ((value ?? undefined) === undefined) return []
    const neutral = Object.hasOwn(known, name) ? known[name] : undefined
    const texts = neutral?.map((value) => JSON.stringify(value))
    const ignored = texts
      ? !texts.includes(JSON.stringify(value))
      : !Object.hasOwn(schema.properties, name)
    return ignored ? [name] : []
  })
}

export const unsupported = (param: string): ErrorWhere => ({
  param,
  code: 'unsupported_parameter',
})

const ZERO = Type.Integer({ minimum: 0 })

export const Usage = Type.Object(
  {
    prompt_tokens: ZERO,
    completion_tokens: ZERO,
    total_tokens: ZERO,
    prompt_tokens_details: Type.Object({ cached_tokens: ZERO }),
    completion_tokens_details: Type.Object({ reasoning_tokens: ZERO }),
  },
  { $id: 'CompletionUsage' },
)

export const presentUsage = ({
  prompt_tokens,
  completion_tokens,
  cached_tokens,
}: Pick<Answers, 'prompt_tokens' | 'completion_tokens' | 'cached_tokens'>): Static<
  typeof Usage
> => ({
  prompt_tokens,
  completion_tokens,
  total_tokens: prompt_tokens + completion_tokens,
  prompt_tokens_details: { cached_tokens },
  completion_tokens_details: { reasoning_tokens: 0 },
})

export const FinishReason = Type.Unsafe<'stop' | 'length'>({
  type: 'string',
  enum: ['stop', 'length'],
})

/** The reply of a route that answers whole or, when `stream` is true, by events. */
export const wholeOrStream = (whole: TSchema, chunk: TSchema) => ({
  description: 'The answer; with `stream` its chunks as events, `[DONE]` at last.',
  content: { 'application/json': { schema: whole }, 'text/event-stream': { schema: chunk } },
})

/** What all chunks of one answer have in common. */
export interface AnswerHead {
  id: string
  /** Unix seconds. */
  created: number
  /** As the client called it. */
  model: string
  /** The same for the same weights. */
  system_fingerprint: string
}
