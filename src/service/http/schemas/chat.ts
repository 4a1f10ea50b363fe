// A chat on the wire: the request's shape and what it means.

import { type Static, Type } from 'typebox'
import type { GrammarSource } from '../../../engine/grammar/request.ts'
import { prepareSchema } from '../../../engine/grammar/schema.ts'
import type { ChatMessage } from '../../../engine/infer/request.ts'
import { invalidRequest } from '../../../errors.ts'
import type { Generation } from '../../scheduler/serving.ts'
import { Metadata } from './fine-tuning.ts'
import { asTools, type FunctionCall, functionFields, usesFunctions } from './functions.ts'
import {
  accepted,
  boolean,
  generationFields,
  ignoredFields,
  integer,
  MAX_TOKENS,
  neutral,
  refuse,
  samplingOf,
  unsupported,
} from './generation.ts'

import { MessageToolCall, toolFields, toolsOf } from './tools.ts'

interface ContentPart {
  type: string
  text?: string
  refusal?: string
}

const ROLES = ['developer', 'system', 'user', 'assistant', 'tool', 'function'] as const

const Message = Type.Object(
  {
    role: Type.Unsafe<(typeof ROLES)[number]>({ type: 'string', enum: ROLES }),
    content: Type.Optional(
      Type.Unsafe<string | ContentPart[] | null>({
        type: ['string', 'array', 'null'],
        minItems: 1,
        items: {
          type: 'object',
          required: ['type'],
          properties: {
            type: { type: 'string', description: '`text`; an assistant may also have `refusal`.' },
            text: { type: 'string' },
            refusal: { type: 'string' },
          },
        },
      }),
    ),
    name: Type.Optional(Type.String()),
    refusal: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'] })),
    tool_call_id: Type.Optional(Type.String()),
    tool_calls: Type.Optional(
      Type.Unsafe<unknown[] | null>({ type: ['array', 'null'], items: MessageToolCall }),
    ),
    function_call: Type.Optional(
      Type.Unsafe<FunctionCall | null>({
        type: ['object', 'null'],
        required: ['name', 'arguments'],
        properties: { name: { type: 'string' }, arguments: { type: 'string' } },
      }),
    ),
    audio: neutral('null'),
  },
  { $id: 'ChatCompletionRequestMessage' },
)

const ResponseFormat = Type.Unsafe<{
  type: 'text' | 'json_object' | 'json_schema'
  json_schema?: { name: string; schema?: unknown }
} | null>({
  type: ['object', 'null'],
  required: ['type'],
  properties: {
    type: { type: 'string', enum: ['text', 'json_object', 'json_schema'] },
    json_schema: {
      type: 'object',
      required: ['name'],
      properties: {
        name: { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,64}$' },
        description: { type: 'string' },
        schema: { description: 'A JSON Schema; docs/structured-output.md lists the keywords.' },
        strict: { type: ['boolean', 'null'], description: 'Answers hold to the schema anyhow.' },
      },
    },
  },
})

export const ChatCompletionRequest = Type.Object(
  {
    ...generationFields,
    messages: Type.Array(Message, { minItems: 1 }),
    max_completion_tokens: integer(1, MAX_TOKENS, 'New tokens at most.'),
    max_tokens: integer(1, MAX_TOKENS, 'The older name of `max_completion_tokens`.'),
    logprobs: boolean("Tell each token's log-probability, before penalties and sampling."),
    top_logprobs: integer(0, 20, 'Tell this many of the most probable tokens at each place.'),
    response_format: Type.Optional(ResponseFormat),
    ...toolFields,
    ...functionFields,
    modalities: neutral('["text"]'),
    audio: neutral('null'),
    web_search_options: neutral('null'),
    moderation: neutral('null'),
    service_tier: accepted('Ignored; the answer says `default`.'),
    store: boolean('Keep the answer with its messages for 30 days. Default false.'),
    metadata: Type.Optional(
      Type.Union([Metadata, Type.Null()], { description: 'Of an answer that is kept.' }),
    ),
    safety_identifier: accepted(),
    prompt_cache_key: accepted(),
    prompt_cache_retention: accepted(),
    prompt_cache_options: accepted(),
    verbosity: accepted(),
    reasoning_effort: accepted(),
    prediction: accepted(),
  },
  { $id: 'CreateChatCompletionRequest' },
)
export type ChatCompletionRequest = Static<typeof ChatCompletionRequest>

const NEUTRAL = {
  modalities: [['text']],
  audio: [],
  web_search_options: [],
  moderation: [],
}

/** What differs from these would change the answer elsewhere. */
const WITHOUT_EFFECT = {
  verbosity: ['medium'],
  reasoning_effort: ['none'],
}

/** Fields of a request that do nothing here. */
export const ignoredByChat = (body: ChatCompletionRequest): string[] =>
  ignoredFields(body, ChatCompletionRequest, {
    ...WITHOUT_EFFECT,
    ...(!body.store && { metadata: [{}] }),
  })

/** What a request asks the engine for; throws at the first field that cannot be honoured. */
export function toGeneration(body: ChatCompletionRequest, seed: number): Generation {
  refuse(body, NEUTRAL)
  const max_tokens = maxTokens(body)
  const logprobs = topLogprobs(body)
  const { tools, tool_use } = toolsOf(
    asTools(body),
    usesFunctions(body) ? (at) => `functions[${at}].parameters` : undefined,
  )
  return {
    prompt: { messages: body.messages.map(toMessage), ...(tools && { tools }) },
    ...(tool_use && { tool_use }),
    ...(max_tokens === undefined ? {} : { max_tokens }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...chatGrammar(body),
    ...samplingOf(body, seed),
  }
}

/** What answers in a format are held to; `where` says how the client calls the places of it. */
export function grammarOf(
  format: { type: string; schema?: unknown } | null | undefined,
  where: { format: string; schema: string },
): { grammar?: GrammarSource } {
  switch (format?.type) {
    case 'json_object':
      return { grammar: prepareSchema({ type: 'object' }, where.format) }
    case 'json_schema':
      return {
        grammar: prepareSchema(format.schema ?? { type: 'object' }, `${where.schema}.schema`),
      }
    default:
      return {}
  }
}

/** Chat has the schema one level deeper than its format. */
function chatGrammar({ response_format }: ChatCompletionRequest) {
  const format = 'response_format'
  const schema = `${format}.json_schema`
  if (response_format?.type === 'json_schema' && !response_format.json_schema)
    throw invalidRequest(`Missing required parameter: '${schema}'.`, {
      param: schema,
      code: 'missing_required_parameter',
    })
  const { type = 'text', json_schema } = response_format ?? {}
  return grammarOf({ type, schema: json_schema?.schema }, { format, schema })
}

/** The name under which the client bounded the answer. */
export const maxTokensParam = (body: ChatCompletionRequest) =>
  typeof body.max_completion_tokens === 'number' ? 'max_completion_tokens' : 'max_tokens'

function maxTokens({ max_tokens, max_completion_tokens }: ChatCompletionRequest) {
  const [old, current] = [max_tokens ?? undefined, max_completion_tokens ?? undefined]
  if (old !== undefined && current !== undefined && old !== current)
    throw invalidRequest(
      `'max_tokens' (${old}) and 'max_completion_tokens' (${current}) differ. Send one of them.`,
      { param: 'max_tokens', code: 'invalid_value' },
    )
  return current ?? old
}

function topLogprobs({ logprobs, top_logprobs }: ChatCompletionRequest) {
  if (logprobs) return top_logprobs ?? 0
  if (!top_logprobs) return undefined
  throw invalidRequest("The 'logprobs' parameter must be true for 'top_logprobs' to be used.", {
    param: 'top_logprobs',
    code: 'invalid_value',
  })
}

function toMessage(message: Static<typeof Message>, at: number): ChatMessage {
  const where = `messages[${at}]`
  const { role, name } = message
  if ((message.audio ?? undefined) !== undefined)
    throw invalidRequest(
      `Unsupported parameter: '${where}.audio' is not supported by this server.`,
      unsupported(`${where}.audio`),
    )
  const refusal = role === 'assistant' ? (message.refusal ?? '') : ''
  if (role !== 'assistant' && (message.content ?? undefined) === undefined)
    throw invalidRequest(`Missing required parameter: '${where}.content'.`, {
      param: `${where}.content`,
      code: 'missing_required_parameter',
    })
  const needed = role === 'tool' ? 'tool_call_id' : role === 'function' ? 'name' : undefined
  if (needed && message[needed] === undefined)
    throw invalidRequest(`Missing required parameter: '${where}.${needed}'.`, {
      param: `${where}.${needed}`,
      code: 'missing_required_parameter',
    })
  return {
    role: role === 'developer' ? 'system' : role === 'function' ? 'tool' : role,
    content: toText(message.content ?? refusal, role, `${where}.content`),
    ...(name === undefined ? {} : { name }),
    ...(message.tool_calls?.length ? { tool_calls: message.tool_calls } : {}),
    ...(message.function_call ? { tool_calls: [callOf(message.function_call)] } : {}),
    ...(message.tool_call_id === undefined ? {} : { tool_call_id: message.tool_call_id }),
    ...(role === 'function' ? { tool_call_id: callId(name ?? '') } : {}),
  }
}

/** Calls of the older form have no id: there is one at a time, and its result has the function's name. */
const callId = (name: string) => `call_${name}`
const callOf = (call: FunctionCall) => ({ id: callId(call.name), type: 'function', function: call })

function toText(content: string | ContentPart[], role: string, where: string): string {
  if (typeof content === 'string') return content
  const texts = content.map((part, at) => {
    const param = `${where}[${at}]`
    const field = role === 'assistant' && part.type === 'refusal' ? 'refusal' : 'text'
    if (part.type !== field)
      throw invalidRequest(
        `Invalid value: '${part.type}'. This model reads text only; supported values are: 'text'.`,
        { param: `${param}.type`, code: 'invalid_value' },
      )
    const text = part[field]
    if (text === undefined)
      throw invalidRequest(`Missing required parameter: '${param}.${field}'.`, {
        param: `${param}.${field}`,
        code: 'missing_required_parameter',
      })
    return text
  })
  return texts.join('')
}
