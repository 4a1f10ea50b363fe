// Tools on the wire: what a request offers, which of them it wants called, and the calls of an answer.

import { createHash } from 'node:crypto'
import { type Static, Type } from 'typebox'
import { prepareSchema } from '../../../engine/grammar/schema.ts'
import type { GenerateRequest } from '../../../engine/infer/request.ts'
import type { ToolCall } from '../../../engine/tools/parse.ts'
import type { Tool } from '../../../engine/tools/syntax.ts'
import { ApiError, invalidRequest } from '../../../errors.ts'

export interface FunctionTool {
  type: string
  function: { name: string; description?: string; parameters?: unknown; strict?: boolean | null }
}

interface NamedTool {
  type: string
  function?: { name: string }
  allowed_tools?: { mode: 'auto' | 'required'; tools: NamedTool[] }
}

export const NAME = { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,64}$' }

export const toolFields = {
  tools: Type.Optional(
    Type.Unsafe<FunctionTool[] | null>({
      type: ['array', 'null'],
      maxItems: 128,
      description: 'Functions that the model may call.',
      items: {
        type: 'object',
        required: ['type', 'function'],
        properties: {
          type: { type: 'string', enum: ['function'] },
          function: {
            type: 'object',
            required: ['name'],
            properties: {
              name: NAME,
              description: { type: 'string' },
              parameters: { description: 'A JSON Schema of the arguments.' },
              strict: { type: ['boolean', 'null'] },
            },
          },
        },
      },
    }),
  ),
  tool_choice: Type.Optional(
    Type.Unsafe<'none' | 'auto' | 'required' | NamedTool | null>({
      type: ['string', 'object', 'null'],
      description:
        '`none`, `auto`, `required`, one function by name, or `allowed_tools`. Default `auto` where there are tools.',
    }),
  ),
  parallel_tool_calls: Type.Optional(
    Type.Unsafe<boolean | null>({
      type: ['boolean', 'null'],
      description: 'Whether one answer may have several calls. Default true.',
    }),
  ),
}

export interface ToolBody {
  tools?: FunctionTool[] | null
  tool_choice?: 'none' | 'auto' | 'required' | NamedTool | null
  parallel_tool_calls?: boolean | null
}

/** The tools a request shows the model, and what it may do with them. */
export function toolsOf(
  body: ToolBody,
  whereOf = (at: number) => `tools.${at}.function.parameters`,
): {
  tools?: readonly unknown[]
  tool_use?: NonNullable<GenerateRequest['tool_use']>
} {
  const tools = body.tools ?? []
  const choice = body.tool_choice ?? (tools.length > 0 ? 'auto' : 'none')
  if (tools.length === 0) {
    if (choice === 'none' || choice === 'auto') return {}
    throw wrong('tool_choice', "'tool_choice' is only allowed when 'tools' are specified.")
  }
  if (choice === 'none') return { tools }
  const { required, names } = chosen(choice)
  const missing = names?.find((name) => !tools.some((tool) => tool.function.name === name))
  if (missing !== undefined)
    throw wrong('tool_choice', `Tool choice '${missing}' not found in 'tools'.`)
  const usable = tools.flatMap((tool, at) =>
    names && !names.includes(tool.function.name) ? [] : [toolOf(tool, whereOf(at))],
  )
  return {
    tools,
    tool_use: { tools: usable, required, parallel: body.parallel_tool_calls ?? true },
  }
}

function chosen(choice: 'auto' | 'required' | NamedTool): { required: boolean; names?: string[] } {
  if (choice === 'auto' || choice === 'required') return { required: choice === 'required' }
  if (typeof choice === 'object' && choice.type === 'function' && choice.function?.name)
    return { required: true, names: [choice.function.name] }
  if (typeof choice === 'object' && choice.type === 'allowed_tools' && choice.allowed_tools)
    return {
      required: choice.allowed_tools.mode === 'required',
      names: choice.allowed_tools.tools.flatMap((tool) => tool.function?.name ?? []),
    }
  throw wrong(
    'tool_choice',
    "Invalid value for 'tool_choice': expected 'none', 'auto', 'required', a function by name or 'allowed_tools'.",
  )
}

/** Without `strict` a schema that no grammar can hold to is shown to the model all the same. */
function toolOf({ function: { name, parameters, strict } }: FunctionTool, where: string): Tool {
  try {
    const { text } = prepareSchema(parameters ?? { type: 'object', properties: {} }, where)
    return { name, schema: text }
  } catch (error) {
    if (strict || !(error instanceof ApiError)) throw error
    return { name, schema: JSON.stringify({ type: 'object', additionalProperties: true }) }
  }
}

const wrong = (param: string, message: string) =>
  invalidRequest(message, { param, code: 'invalid_value' })

export const MessageToolCall = Type.Object({
  id: Type.String(),
  type: Type.Literal('function'),
  function: Type.Object({ name: Type.String(), arguments: Type.String() }),
})

/** The id follows from the answer's, the choice and the place, so that a stream and what is kept of it agree. */
export const presentCall = (call: ToolCall, ...place: [string, number, number]) => ({
  id: `call_${createHash('sha256').update(place.join(' ')).digest('hex').slice(0, 24)}`,
  type: 'function' as const,
  function: call,
})

export const ToolCallChunk = Type.Object({
  index: Type.Integer(),
  id: Type.Optional(Type.String()),
  type: Type.Optional(Type.Literal('function')),
  function: Type.Object({
    name: Type.Optional(Type.String()),
    arguments: Type.String(),
  }),
})

/** A call in two pieces: its name, then its arguments. */
export const callChunks = (
  call: ToolCall,
  ...place: [string, number, number]
): Static<typeof ToolCallChunk>[] => {
  const index = place[2]
  return [
    { index, ...presentCall({ name: call.name, arguments: '' }, ...place) },
    { index, function: { arguments: call.arguments } },
  ]
}
