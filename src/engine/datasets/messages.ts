// A chat's messages and tools as OpenAI's clients write them, every mistake found and named.

import type { Chat, TemplateMessage } from '../tokenizer/chat-template.ts'
import { isRecord, pointerTo, type RowReport, shown } from './report-row.ts'

export type Json = Readonly<Record<string, unknown>>

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool', 'function']
const MESSAGE_KEYS = [
  'role',
  'content',
  'name',
  'weight',
  'tool_calls',
  'tool_call_id',
  'function_call',
]

/** Checks a chat that lies `at` a pointer; undefined where it is no list, or an empty one, of which nothing is said. */
export function checkMessages(
  messages: unknown,
  at: string,
  report: RowReport,
): Json[] | undefined {
  if (!Array.isArray(messages) || messages.length === 0) return undefined
  for (const [i, message] of messages.entries())
    if (isRecord(message)) checkMessage(message, `${at}/${i}`, report)
    else report.add('data_type', `${at}/${i}`, 'is not a JSON object')
  const objects = messages.map((message): Json => (isRecord(message) ? message : {}))
  checkAnswers(objects, at, report)
  return objects
}

function checkMessage(message: Json, at: string, report: RowReport) {
  for (const key of Object.keys(message))
    if (!MESSAGE_KEYS.includes(key))
      report.add(
        'message_unrecognized_key',
        at + pointerTo(key),
        `has an unrecognized key ${shown(key)}`,
      )

  const { role, name } = message
  if (role === undefined)
    report.add('message_missing_key', at, "Discriminator 'role' is missing in value")
  else if (typeof role !== 'string' || !ROLES.includes(role))
    report.add(
      'unrecognized_role',
      `${at}/role`,
      `has an unrecognized role ${shown(role)}, expected one of ${ROLES.join(', ')}`,
    )
  checkContent(message, at, report)
  if (name !== undefined && typeof name !== 'string')
    report.add('data_type', `${at}/name`, "has a 'name' that is not a string")
  if (role === 'function' && name === undefined)
    report.add('message_missing_key', at, "of role 'function' is missing the key 'name'")
  checkWeight(message, at, report)
  checkCalls(message, at, report)
}

function checkContent(message: Json, at: string, report: RowReport) {
  const { content } = message
  const calls = message.tool_calls !== undefined || message.function_call !== undefined
  if (!('content' in message)) {
    if (!calls) report.add('message_missing_key', at, "is missing the key 'content'")
  } else if (content === null || content === '' || (Array.isArray(content) && !content.length)) {
    if (!calls) report.add('missing_content', `${at}/content`, "has an empty 'content'")
  } else if (Array.isArray(content)) checkParts(content, at, report)
  else if (typeof content !== 'string')
    report.add('data_type', `${at}/content`, "has a 'content' that is not a string")
}

function checkParts(parts: readonly unknown[], at: string, report: RowReport) {
  for (const [i, part] of parts.entries()) {
    const pointer = `${at}/content/${i}`
    if (!isRecord(part)) report.add('data_type', pointer, 'has a content part that is no object')
    else if (part.type !== 'text')
      report.add(
        'unsupported_content',
        `${pointer}/type`,
        `has a content part of type ${shown(part.type)}, only text is supported`,
      )
    else if (typeof part.text !== 'string')
      report.add('data_type', `${pointer}/text`, "has a content part whose 'text' is not a string")
  }
}

function checkWeight({ role, weight }: Json, at: string, report: RowReport) {
  if (weight === undefined) return
  const pointer = `${at}/weight`
  if (role !== 'assistant')
    report.add('invalid_weight', pointer, "has a 'weight', which only assistant messages can have")
  else if (weight !== 0 && weight !== 1)
    report.add('invalid_weight', pointer, `has weight ${shown(weight)}, expected 0 or 1`)
}

function checkCalls(message: Json, at: string, report: RowReport) {
  const { role, tool_calls, tool_call_id, function_call } = message
  for (const key of ['tool_calls', 'function_call'])
    if (message[key] !== undefined && role !== 'assistant')
      report.add(
        'invalid_tool_calls',
        `${at}/${key}`,
        `has '${key}', which only assistants can have`,
      )
  if (function_call !== undefined && !isFunctionCall(function_call))
    report.add(
      'invalid_tool_calls',
      `${at}/function_call`,
      "has a 'function_call' without a name and arguments, both strings",
    )
  if (role === 'tool' && typeof tool_call_id !== 'string')
    report.add('message_missing_key', at, "of role 'tool' is missing the key 'tool_call_id'")
  if (role !== 'tool' && tool_call_id !== undefined)
    report.add(
      'invalid_tool_calls',
      `${at}/tool_call_id`,
      "has a 'tool_call_id', which only tool messages can have",
    )

  if (tool_calls === undefined) return
  if (!Array.isArray(tool_calls) || tool_calls.length === 0)
    return report.add('invalid_tool_calls', `${at}/tool_calls`, "has 'tool_calls' that are no list")
  for (const [i, call] of tool_calls.entries())
    if (
      !isRecord(call) ||
      typeof call.id !== 'string' ||
      call.type !== 'function' ||
      !isFunctionCall(call.function)
    )
      report.add(
        'invalid_tool_calls',
        `${at}/tool_calls/${i}`,
        "has a tool call without an id, the type 'function' and a function with name and arguments",
      )
}

const isFunctionCall = (value: unknown) =>
  isRecord(value) && typeof value.name === 'string' && typeof value.arguments === 'string'

/** Every tool call is answered before anyone else speaks, and no tool answers what nobody asked. */
function checkAnswers(messages: readonly Json[], at: string, report: RowReport) {
  let open = new Map<string, string>()
  const close = () => {
    for (const [id, pointer] of open)
      report.add(
        'tool_call_without_answer',
        pointer,
        `has a tool call ${shown(id)} that no tool message answers`,
      )
    open = new Map()
  }
  for (const [i, message] of messages.entries()) {
    if (message.role === 'tool') {
      const id = message.tool_call_id
      if (typeof id === 'string' && !open.delete(id))
        report.add(
          'tool_message_without_call',
          `${at}/${i}/tool_call_id`,
          `answers a tool call ${shown(id)} that was not made`,
        )
      continue
    }
    close()
    const calls = Array.isArray(message.tool_calls) ? message.tool_calls : []
    for (const [k, call] of calls.entries())
      if (isRecord(call) && typeof call.id === 'string')
        open.set(call.id, `${at}/${i}/tool_calls/${k}`)
  }
  // A chat may end with the call itself: that is what it teaches.
  if (messages.at(-1)?.role === 'tool') close()
}

/** What a chat may call: `tools`, and the older `functions`. */
export function checkTools(row: Json, at: string, report: RowReport) {
  const { tools, functions, parallel_tool_calls } = row
  if (tools !== undefined) {
    if (!Array.isArray(tools))
      report.add('invalid_tools', `${at}/tools`, "has 'tools' that are no list")
    else
      for (const [i, tool] of tools.entries())
        if (!isRecord(tool) || tool.type !== 'function' || !isNamed(tool.function))
          report.add(
            'invalid_tools',
            `${at}/tools/${i}`,
            "has a tool that is not of type 'function' with a named function",
          )
  }
  if (functions !== undefined && !(Array.isArray(functions) && functions.every(isNamed)))
    report.add(
      'invalid_tools',
      `${at}/functions`,
      "has 'functions' that are no list of named functions",
    )
  if (parallel_tool_calls !== undefined && typeof parallel_tool_calls !== 'boolean')
    report.add(
      'data_type',
      `${at}/parallel_tool_calls`,
      "has a 'parallel_tool_calls' that is no boolean",
    )
}

const isNamed = (value: unknown) => isRecord(value) && typeof value.name === 'string'

/**
 * A checked chat as templates know it: functions of old are tools, and what calls and answers them are tool calls and
 * messages of tools.
 */
export function chatOf({ messages, tools, functions }: Json): Chat {
  const called = (functions as readonly unknown[] | undefined)?.map((each) => ({
    type: 'function',
    function: each,
  }))
  let call = ''
  return {
    tools: (tools as readonly unknown[] | undefined) ?? called,
    messages: (messages as readonly (TemplateMessage & Json)[]).map((message, i) => {
      const { function_call, ...rest } = message
      if (function_call !== undefined) {
        call = `call_${i}`
        return { ...rest, tool_calls: [{ id: call, type: 'function', function: function_call }] }
      }
      return message.role === 'function' ? { ...rest, role: 'tool', tool_call_id: call } : message
    }),
  }
}
