// Responses on the wire: the request's shape and what it means, and the object that answers it.

import { type Static, Type } from 'typebox'
import type { ChatMessage } from '../../../engine/infer/request.ts'
import { invalidRequest } from '../../../errors.ts'
import type { OutputItem } from '../../answers/items.ts'
import type { Generation } from '../../scheduler/serving.ts'
import { grammarOf } from './chat.ts'
import { Metadata } from './fine-tuning.ts'
import {
  type AnswerHead,
  accepted,
  boolean,
  generationFields,
  ignoredFields,
  integer,
  MAX_TOKENS,
  neutral,
  presentUsage,
  refuse,
  samplingOf,
  unsupported,
} from './generation.ts'
import { Input, OutputItems } from './response-items.ts'
import { toolsOf } from './tools.ts'

const { model, temperature, top_p, seed, top_k, min_p, repetition_penalty } = generationFields
const text = { type: 'string' }
const NAME = { ...text, pattern: '^[a-zA-Z0-9_-]{1,64}$' }

interface TextFormat {
  type: 'text' | 'json_object' | 'json_schema'
  name?: string
  schema?: unknown
  description?: string
  strict?: boolean | null
}

interface FunctionTool {
  type: string
  name?: string
  description?: string | null
  parameters?: Record<string, unknown> | null
  strict?: boolean | null
}

type ToolChoice =
  | 'none'
  | 'auto'
  | 'required'
  | { type: string; name?: string; mode?: 'auto' | 'required'; tools?: FunctionTool[] }

export const ResponseRequest = Type.Object(
  {
    model,
    input: Input,
    instructions: Type.Optional(
      Type.Unsafe<string | null>({
        type: ['string', 'null'],
        description:
          'What the system says first; not carried over to responses that go on from this.',
      }),
    ),
    previous_response_id: Type.Optional(
      Type.Unsafe<string | null>({
        type: ['string', 'null'],
        description: 'A stored response; what was said up to its end comes before the input.',
      }),
    ),
    max_output_tokens: integer(16, MAX_TOKENS, 'New tokens at most.'),
    temperature,
    top_p,
    top_logprobs: integer(
      0,
      20,
      'Tell this many of the most probable tokens at each place, and the log-probability of each token.',
    ),
    include: Type.Optional(
      Type.Unsafe<string[] | null>({
        type: ['array', 'null'],
        items: text,
        description: '`message.output_text.logprobs`; others have nothing to add.',
      }),
    ),
    text: Type.Optional(
      Type.Unsafe<{ format?: TextFormat | null; verbosity?: string | null } | null>({
        type: ['object', 'null'],
        properties: {
          format: {
            type: ['object', 'null'],
            required: ['type'],
            properties: {
              type: { ...text, enum: ['text', 'json_object', 'json_schema'] },
              name: NAME,
              description: text,
              schema: {
                description: 'A JSON Schema; docs/structured-output.md lists the keywords.',
              },
              strict: { type: ['boolean', 'null'] },
            },
          },
          verbosity: { type: ['string', 'null'], description: 'Accepted and ignored.' },
        },
      }),
    ),
    tools: Type.Optional(
      Type.Unsafe<FunctionTool[] | null>({
        type: ['array', 'null'],
        maxItems: 128,
        description: 'Functions that the model may call. There are no hosted tools.',
        items: {
          type: 'object',
          required: ['type'],
          properties: {
            type: text,
            name: NAME,
            description: { type: ['string', 'null'] },
            parameters: { type: ['object', 'null'] },
            strict: { type: ['boolean', 'null'] },
          },
        },
      }),
    ),
    tool_choice: Type.Optional(
      Type.Unsafe<ToolChoice | null>({
        type: ['string', 'object', 'null'],
        description: '`none`, `auto`, `required`, one function by name, or `allowed_tools`.',
      }),
    ),
    parallel_tool_calls: boolean('Whether one answer may have several calls. Default true.'),
    truncation: Type.Optional(
      Type.Unsafe<'auto' | 'disabled' | null>({
        type: ['string', 'null'],
        enum: ['auto', 'disabled', null],
        description: '`auto` leaves out the oldest turns where all together are too long.',
      }),
    ),
    store: boolean('Keep the response for 30 days. Default true.'),
    metadata: Type.Optional(Type.Union([Metadata, Type.Null()])),
    stream: boolean('Answer by server-sent events.'),
    stream_options: Type.Optional(
      Type.Unsafe<{ include_obfuscation?: boolean | null } | null>({
        type: ['object', 'null'],
        properties: { include_obfuscation: { type: ['boolean', 'null'] } },
      }),
    ),
    seed,
    top_k,
    min_p,
    repetition_penalty,
    background: neutral('false'),
    conversation: neutral('null'),
    prompt: neutral('null'),
    context_management: neutral('null'),
    moderation: neutral('null'),
    reasoning: accepted(),
    max_tool_calls: accepted('Ignored: it counts hosted tools.'),
    service_tier: accepted('Ignored; the answer says `default`.'),
    user: accepted(),
    safety_identifier: accepted(),
    prompt_cache_key: accepted(),
    prompt_cache_retention: accepted(),
    prompt_cache_options: accepted(),
  },
  { $id: 'CreateResponse' },
)
export type ResponseRequest = Static<typeof ResponseRequest>

const NEUTRAL = {
  background: [false],
  conversation: [],
  prompt: [],
  context_management: [],
  moderation: [],
}

/** What differs from these would change the answer elsewhere. */
const WITHOUT_EFFECT = { reasoning: [{}, { effort: 'none' }, { effort: null, summary: null }] }

/** Fields of a request that do nothing here. */
export const ignoredByResponses = (body: ResponseRequest): string[] => [
  ...ignoredFields(body, ResponseRequest, WITHOUT_EFFECT),
  ...((body.text?.verbosity ?? 'medium') === 'medium' ? [] : ['text.verbosity']),
]

/** What a request asks the engine for; throws at the first field that cannot be honoured. */
export function toGeneration(
  body: ResponseRequest,
  messages: ChatMessage[],
  seed: number,
): Generation {
  const { tools, tool_use } = toolsOf(chatTools(body), (at) => `tools[${at}].parameters`)
  const { max_output_tokens } = body
  return {
    prompt: { messages, ...(tools && { tools }) },
    ...(tool_use && { tool_use }),
    ...(typeof max_output_tokens === 'number' ? { max_tokens: max_output_tokens } : {}),
    ...(wantsLogprobs(body) ? { logprobs: body.top_logprobs ?? 0 } : {}),
    ...grammarOf(body.text?.format, { format: 'text.format', schema: 'text.format' }),
    ...samplingOf(body, seed),
  }
}

/** Refuses what no response here can honour, before anything is looked up. */
export function refuseUnsupported(body: ResponseRequest): void {
  refuse(body, NEUTRAL)
  for (const [at, { type, name }] of (body.tools ?? []).entries()) {
    const where = `tools[${at}]`
    if (type !== 'function')
      throw invalidRequest(
        `Unsupported tool: '${type}'. This server has no hosted tools; supported values are: 'function'.`,
        { param: `${where}.type`, code: 'unsupported_tool' },
      )
    if (name === undefined) throw missing(`${where}.name`)
  }
  const { format } = body.text ?? {}
  if (format?.type !== 'json_schema') return
  for (const field of ['name', 'schema'] as const)
    if (format[field] === undefined) throw missing(`text.format.${field}`)
}

const missing = (param: string) =>
  invalidRequest(`Missing required parameter: '${param}'.`, {
    param,
    code: 'missing_required_parameter',
  })

const wantsLogprobs = ({ include, top_logprobs }: ResponseRequest): boolean =>
  (include ?? []).includes('message.output_text.logprobs') || (top_logprobs ?? 0) > 0

/** Tools and the choice of them in chat's words, which the models' templates know. */
function chatTools({ tools, tool_choice, parallel_tool_calls }: ResponseRequest) {
  return {
    tools: (tools ?? []).map(({ name = '', description, parameters, strict }) => ({
      type: 'function',
      function: {
        name,
        ...(description && { description }),
        ...(parameters && { parameters }),
        ...(typeof strict === 'boolean' && { strict }),
      },
    })),
    tool_choice: chatChoice(tool_choice ?? null),
    parallel_tool_calls: parallel_tool_calls ?? null,
  }
}

function chatChoice(choice: ToolChoice | null) {
  if (choice === null || typeof choice === 'string') return choice
  const named = ({ name = '' }: { name?: string }) => ({ type: 'function', function: { name } })
  switch (choice.type) {
    case 'function':
      return named(choice)
    case 'allowed_tools': {
      const { mode = 'auto', tools = [] } = choice
      return { type: 'allowed_tools', allowed_tools: { mode, tools: tools.map(named) } }
    }
    default:
      throw invalidRequest(
        `Unsupported tool choice: '${choice.type}'. This server has no hosted tools.`,
        unsupported('tool_choice'),
      )
  }
}

const ZERO = Type.Integer({ minimum: 0 })

const Usage = Type.Object({
  input_tokens: ZERO,
  input_tokens_details: Type.Object({ cached_tokens: ZERO, cache_write_tokens: ZERO }),
  output_tokens: ZERO,
  output_tokens_details: Type.Object({ reasoning_tokens: ZERO }),
  total_tokens: ZERO,
})
const orNull = (type: string) => Type.Unsafe<unknown>({ type: [type, 'null'] })

export const ResponseObject = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal('response'),
    created_at: Type.Integer(),
    status: Type.Enum(['in_progress', 'completed', 'incomplete', 'failed']),
    completed_at: orNull('integer'),
    error: Type.Union([Type.Object({ code: Type.String(), message: Type.String() }), Type.Null()]),
    incomplete_details: Type.Union([
      Type.Object({ reason: Type.Literal('max_output_tokens') }),
      Type.Null(),
    ]),
    model: Type.String(),
    output: OutputItems,
    usage: Type.Optional(Usage),
    background: Type.Literal(false),
    instructions: orNull('string'),
    max_output_tokens: orNull('integer'),
    metadata: Metadata,
    parallel_tool_calls: Type.Boolean(),
    previous_response_id: orNull('string'),
    reasoning: Type.Object({ effort: Type.Null(), summary: Type.Null() }),
    service_tier: Type.Literal('default'),
    store: Type.Boolean(),
    temperature: Type.Number(),
    text: Type.Object({ format: Type.Object({ type: Type.String() }) }),
    tool_choice: Type.Unsafe<ToolChoice>({ type: ['string', 'object'] }),
    tools: Type.Array(Type.Object({ type: Type.Literal('function'), name: Type.String() })),
    top_logprobs: ZERO,
    top_p: Type.Number(),
    truncation: Type.Enum(['auto', 'disabled']),
  },
  { $id: 'Response' },
)
export type ResponseObject = Static<typeof ResponseObject>

export const ResponseEvent = Type.Object(
  { type: Type.String(), sequence_number: Type.Integer() },
  {
    $id: 'ResponseStreamEvent',
    additionalProperties: true,
    description:
      '`response.created`, `response.in_progress`, the items with their parts and deltas, then `response.completed`, `.incomplete` or `.failed`; or `error`.',
  },
)

export const DeletedResponse = Type.Object({
  id: Type.String(),
  object: Type.Literal('response'),
  deleted: Type.Literal(true),
})

/** How far a response has come. */
export interface Progress {
  status: ResponseObject['status']
  output: OutputItem[]
  usage?: { prompt_tokens: number; completion_tokens: number; cached_tokens: number }
  error?: { code: string; message: string }
}

export const presentResponse = (
  body: ResponseRequest,
  { id, created, model }: AnswerHead,
  { status, output, usage, error }: Progress,
): ResponseObject => ({
  id,
  object: 'response',
  created_at: created,
  status,
  completed_at: status === 'completed' ? Math.floor(Date.now() / 1000) : null,
  error: error ?? null,
  incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
  model,
  output: structuredClone(output) as ResponseObject['output'],
  ...(usage && { usage: responseUsage(usage) }),
  background: false,
  instructions: body.instructions ?? null,
  max_output_tokens: body.max_output_tokens ?? null,
  metadata: body.metadata ?? {},
  parallel_tool_calls: body.parallel_tool_calls ?? true,
  previous_response_id: body.previous_response_id ?? null,
  reasoning: { effort: null, summary: null },
  service_tier: 'default',
  store: body.store ?? true,
  temperature: body.temperature ?? 1,
  text: { format: body.text?.format ?? { type: 'text' } },
  tool_choice: body.tool_choice ?? 'auto',
  tools: (body.tools ?? []).map(({ name = '', description, parameters, strict }) => ({
    type: 'function',
    name,
    ...(description && { description }),
    parameters: parameters ?? null,
    strict: strict ?? null,
  })),
  top_logprobs: body.top_logprobs ?? 0,
  top_p: body.top_p ?? 1,
  truncation: body.truncation ?? 'disabled',
})

function responseUsage(counts: NonNullable<Progress['usage']>): Static<typeof Usage> {
  const usage = presentUsage(counts)
  return {
    input_tokens: usage.prompt_tokens,
    input_tokens_details: { ...usage.prompt_tokens_details, cache_write_tokens: 0 },
    output_tokens: usage.completion_tokens,
    output_tokens_details: usage.completion_tokens_details,
    total_tokens: usage.total_tokens,
  }
}
