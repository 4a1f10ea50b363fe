// `functions` and `function_call`, the older names of tools: one function an answer, without ids.

import { Type } from 'typebox'
import { invalidRequest } from '../../../errors.ts'
import { type FunctionTool, NAME, type ToolBody } from './tools.ts'

export interface FunctionCall {
  name: string
  /** JSON. */
  arguments: string
}

export const functionFields = {
  functions: Type.Optional(
    Type.Unsafe<FunctionTool['function'][] | null>({
      type: ['array', 'null'],
      maxItems: 128,
      description: 'The older form of `tools`.',
      items: {
        type: 'object',
        required: ['name'],
        properties: {
          name: NAME,
          description: { type: 'string' },
          parameters: { description: 'A JSON Schema of the arguments.' },
        },
      },
    }),
  ),
  function_call: Type.Optional(
    Type.Unsafe<string | { name: string } | null>({
      type: ['string', 'object', 'null'],
      required: ['name'],
      properties: { name: { type: 'string' } },
      description: 'The older form of `tool_choice`: `none`, `auto` or a function by name.',
    }),
  ),
}

type FunctionBody = ToolBody & {
  functions?: FunctionTool['function'][] | null
  function_call?: string | { name: string } | null
}

/** Whether the client asks, and is answered, in the older form. */
export const usesFunctions = ({ functions }: FunctionBody): boolean => (functions ?? []).length > 0

/** The same in the newer form; throws where a request has both. */
export function asTools(body: FunctionBody): ToolBody {
  const { functions, function_call } = body
  const call = function_call ?? undefined
  if (!functions || functions.length === 0) {
    if (call === undefined || call === 'none') return body
    throw wrong('function_call', "'function_call' is only allowed when 'functions' are specified.")
  }
  if (body.tools?.length || (body.tool_choice ?? undefined) !== undefined)
    throw wrong('functions', "'functions' cannot be sent together with 'tools' or 'tool_choice'.")
  const tools = functions.map((one) => ({ type: 'function', function: one }))
  return { tools, tool_choice: choiceOf(call ?? 'auto', functions), parallel_tool_calls: false }
}

function choiceOf(
  call: string | { name: string },
  functions: readonly { name: string }[],
): NonNullable<ToolBody['tool_choice']> {
  if (call === 'none' || call === 'auto') return call
  if (typeof call === 'string')
    throw wrong(
      'function_call',
      `Invalid value: '${call}'. Supported values are: 'none', 'auto' and a function by name.`,
    )
  if (!functions.some(({ name }) => name === call.name))
    throw wrong('function_call', `The function '${call.name}' is not among 'functions'.`)
  return { type: 'function', function: { name: call.name } }
}

const wrong = (param: string, message: string) =>
  invalidRequest(message, { param, code: 'invalid_value' })
