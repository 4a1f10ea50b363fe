// Rows of preferences: a conversation, and two answers of which one is the better, as OpenAI's DPO takes them.

import type { Format } from './format.ts'
import { checkMessages, checkTools, type Json } from './messages.ts'
import { isRecord, pointerTo, type RowReport, shown } from './report-row.ts'

/** Their usual name, and the one of OpenAI's older specification. */
export const SIDES = [
  ['preferred_output', 'preferred_completion'],
  ['non_preferred_output', 'non_preferred_completion'],
] as const
const KEYS: readonly string[] = ['input', ...SIDES.flat()]

export const preferenceRows: Format = {
  name: 'preference',
  method: 'dpo',
  shape: 'preference rows with an input, a preferred_output and a non_preferred_output',
  marks: KEYS,

  check(row, report) {
    for (const key of Object.keys(row))
      if (!KEYS.includes(key))
        report.add('unrecognized_key', pointerTo(key), `has an unrecognized key ${shown(key)}`)
    checkInput(row, report)
    for (const names of SIDES) checkOutput(row, names, report)
  },
}

/** Under which of its names a row has a side. */
export const nameOf = (row: Json, [usual, older]: readonly [string, string]): string =>
  !(usual in row) && older in row ? older : usual

function checkInput({ input }: Json, report: RowReport) {
  if (input === undefined) return report.add('missing_input', '', "is missing the key 'input'")
  if (!isRecord(input)) return report.add('data_type', '/input', 'is not a JSON object')
  checkTools(input, '/input', report)
  const messages = checkMessages(input.messages, '/input/messages', report)
  if (!messages)
    return report.add(
      'missing_messages_list',
      'messages' in input ? '/input/messages' : '/input',
      "is missing the list 'messages' of its 'input'",
    )
  if (messages.at(-1)?.role === 'assistant')
    report.add(
      'last_message_assistant',
      `/input/messages/${messages.length - 1}`,
      "is the last one of the 'input': the assistant's belong in the two outputs",
    )
}

function checkOutput(row: Json, names: readonly [string, string], report: RowReport) {
  const name = nameOf(row, names)
  const at = `/${name}`
  if (!(name in row)) return report.add(`missing_${names[0]}`, '', `is missing the key '${name}'`)
  const output = row[name]
  if (!Array.isArray(output)) return report.add('data_type', at, `has a '${name}' that is no list`)
  if (output.length !== 1)
    return report.add(
      'output_message_count',
      at,
      `has ${output.length} messages in '${name}', expected exactly one of the assistant`,
    )
  const message = checkMessages(output, at, report)?.[0]
  if (message?.role === undefined) return
  if (message.role !== 'assistant')
    report.add(
      'output_not_assistant',
      `${at}/0/role`,
      `has a message of role ${shown(message.role)} in '${name}', expected the assistant`,
    )
  else if (message.tool_calls !== undefined || message.function_call !== undefined)
    report.add(
      'unsupported_content',
      `${at}/0`,
      `has a tool call in '${name}', only text is supported`,
    )
}
