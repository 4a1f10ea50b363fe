// Items of a response's input on the wire: what a client may send, and the items that come of it.

import { type Static, Type } from 'typebox'
import { invalidRequest } from '../../../errors.ts'
import type { Item, MessagePart } from '../../answers/items.ts'
import { newId } from '../../ids.ts'
import { unsupported } from './generation.ts'

interface SentPart {
  type: string
  text?: string
  refusal?: string
}

type Content = string | SentPart[]

interface SentItem {
  type?: string
  id?: string | null
  role?: (typeof ROLES)[number]
  content?: Content
  call_id?: string
  name?: string
  arguments?: string
  output?: Content
}

export type ResponseInput = string | SentItem[]

const ROLES = ['user', 'assistant', 'system', 'developer'] as const
const text = { type: 'string' }
const content = {
  type: ['string', 'array'],
  items: { type: 'object', required: ['type'], properties: { type: text, text, refusal: text } },
}

/** One list of fields for all kinds, so that a wrong value has one clear error; `readInput` tells the kinds apart. */
export const Input = Type.Unsafe<ResponseInput>({
  type: ['string', 'array'],
  description:
    'A text of the user, or items: `message`, `function_call`, `function_call_output`. Contents are texts.',
  items: {
    type: 'object',
    properties: {
      type: { ...text, description: 'Absent: `message`.' },
      id: { type: ['string', 'null'] },
      role: { ...text, enum: ROLES },
      content,
      call_id: text,
      name: text,
      arguments: { ...text, description: 'JSON.' },
      output: content,
    },
  },
})

/** The items of a request, each with an id; throws at the first that is none. */
export function readInput(input: ResponseInput): Item[] {
  if (typeof input === 'string')
    return readInput([{ type: 'message', role: 'user', content: input }])
  return input.map((item, at) => toItem(item, `input[${at}]`))
}

/** 400 for what a function gave back where it was not called. */
export function checkCalls(items: readonly Item[]): void {
  const called = new Set<string>()
  for (const item of items) {
    if (item.type === 'function_call') called.add(item.call_id)
    if (item.type === 'function_call_output' && !called.has(item.call_id))
      throw invalidRequest(
        `No tool call found for function call output with call_id ${item.call_id}.`,
        { param: 'input', code: 'invalid_value' },
      )
  }
}

function toItem(item: SentItem, where: string): Item {
  const { type = 'message' } = item
  const status = 'completed' as const
  switch (type) {
    case 'message': {
      const role = needed(item, 'role', where)
      const parts = toParts(needed(item, 'content', where), role, `${where}.content`)
      return { id: item.id ?? newId('msg_'), type, status, role, content: parts }
    }
    case 'function_call':
      return {
        id: item.id ?? newId('fc_'),
        type,
        status,
        call_id: needed(item, 'call_id', where),
        name: needed(item, 'name', where),
        arguments: needed(item, 'arguments', where),
      }
    case 'function_call_output': {
      const output = needed(item, 'output', where)
      return {
        id: item.id ?? newId('fco_'),
        type,
        status,
        call_id: needed(item, 'call_id', where),
        output: typeof output === 'string' ? output : toParts(output, 'tool', `${where}.output`),
      }
    }
    default:
      throw invalidRequest(
        `Unsupported item: '${type}'. This server reads 'message', 'function_call' and 'function_call_output'.`,
        unsupported(`${where}.type`),
      )
  }
}

function needed<Name extends keyof SentItem>(
  item: SentItem,
  name: Name,
  where: string,
): NonNullable<SentItem[Name]> {
  const value = item[name] ?? undefined
  if (value !== undefined) return value
  throw missing(`${where}.${name}`)
}

const missing = (param: string) =>
  invalidRequest(`Missing required parameter: '${param}'.`, {
    param,
    code: 'missing_required_parameter',
  })

/** What the assistant said is output, whatever else was said is input. */
function toParts(content: Content, role: string, where: string): MessagePart[] {
  const said = role === 'assistant'
  if (typeof content === 'string') return [toPart(content, said)]
  return content.map((part, at) => {
    if (said && part.type === 'refusal') {
      if (part.refusal === undefined) throw missing(`${where}[${at}].refusal`)
      return { type: 'refusal', refusal: part.refusal }
    }
    if (part.type !== 'input_text' && part.type !== 'output_text' && part.type !== 'text')
      throw invalidRequest(
        `Invalid value: '${part.type}'. This model reads text only; supported values are: 'input_text' and 'output_text'.`,
        { param: `${where}[${at}].type`, code: 'invalid_value' },
      )
    if (part.text === undefined) throw missing(`${where}[${at}].text`)
    return toPart(part.text, said)
  })
}

const toPart = (text: string, said: boolean): MessagePart =>
  said ? { type: 'output_text', text, annotations: [], logprobs: [] } : { type: 'input_text', text }

const LogProb = {
  token: Type.String(),
  bytes: Type.Array(Type.Integer()),
  logprob: Type.Number(),
}

const Part = Type.Union([
  Type.Object({ type: Type.Literal('input_text'), text: Type.String() }),
  Type.Object({
    type: Type.Literal('output_text'),
    text: Type.String(),
    annotations: Type.Unsafe<[]>({ type: 'array', items: {} }),
    logprobs: Type.Array(
      Type.Object({ ...LogProb, top_logprobs: Type.Array(Type.Object(LogProb)) }),
    ),
  }),
  Type.Object({ type: Type.Literal('refusal'), refusal: Type.String() }),
])

const kept = { id: Type.String(), status: Type.Enum(['in_progress', 'completed', 'incomplete']) }

const Message = Type.Object({
  ...kept,
  type: Type.Literal('message'),
  role: Type.Enum([...ROLES]),
  content: Type.Array(Part),
})

const Call = Type.Object({
  ...kept,
  type: Type.Literal('function_call'),
  call_id: Type.String(),
  name: Type.String(),
  arguments: Type.String(),
})

const CallOutput = Type.Object({
  ...kept,
  type: Type.Literal('function_call_output'),
  call_id: Type.String(),
  output: Type.Union([Type.String(), Type.Array(Part)]),
})

export const OutputItems = Type.Array(Type.Union([Message, Call]))

export const ItemParams = Type.Object({ response_id: Type.String() })

const ignored = Type.Optional(Type.Unknown({ description: 'Accepted and ignored.' }))

export const GetResponseQuery = Type.Object({
  include: ignored,
  include_obfuscation: ignored,
  starting_after: ignored,
  stream: Type.Optional(Type.Boolean({ description: 'Not supported: only false.' })),
})

export const ListItemsQuery = Type.Object({
  after: Type.Optional(Type.String()),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
  order: Type.Optional(Type.Enum(['asc', 'desc'], { default: 'desc' })),
  include: ignored,
})

export const ItemList = Type.Object(
  {
    object: Type.Literal('list'),
    data: Type.Array(Type.Union([Message, Call, CallOutput])),
    first_id: Type.Union([Type.String(), Type.Null()]),
    last_id: Type.Union([Type.String(), Type.Null()]),
    has_more: Type.Boolean(),
  },
  { $id: 'ResponseItemList' },
)
export type ItemList = Static<typeof ItemList>
