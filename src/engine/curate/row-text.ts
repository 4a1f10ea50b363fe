// What a row asks and what it answers, as text: that by which rows are compared. Knows the row formats, no tokens.

import type { RowFormat } from '../datasets/example.ts'
import { nameOf, SIDES } from '../datasets/preference-rows.ts'
import { isRecord } from '../datasets/report-row.ts'
import { contentText, type TemplateMessage } from '../tokenizer/chat-template.ts'

type Row = Readonly<Record<string, unknown>>

export interface RowText {
  /** All that the answer depends on. */
  readonly input: string
  /** Of the input what differs from row to row: without what the system says, and without tools. */
  readonly asked: string
  /** What is learned; empty for plain text. */
  readonly output: string
  /** The row's labels, where it has such. */
  readonly labels?: readonly string[]
}

/** Of a row that passed the checks of its format. */
export function rowText(row: Row, format: RowFormat): RowText {
  switch (format) {
    case 'chat': {
      const messages = row.messages as readonly TemplateMessage[]
      const last = messages.findLastIndex(({ role }) => role === 'assistant')
      return { ...chatText(messages.slice(0, last), row), output: answerText(messages[last]!) }
    }
    case 'completion': {
      const prompt = String(row.prompt)
      return { input: prompt, asked: prompt, output: String(row.completion) }
    }
    case 'text': {
      const text = String(row.text)
      return { input: text, asked: text, output: '' }
    }
    case 'preference': {
      const { messages, ...rest } = row.input as { messages: readonly TemplateMessage[] }
      const asked = chatText(messages, rest)
      const [better, worse] = SIDES.map((names) =>
        answerText((row[nameOf(row, names)] as readonly TemplateMessage[])[0]!),
      ) as [string, string]
      // Only rows that weigh the same two answers can contradict each other.
      const both = [better, worse].sort().join('\n')
      return { ...asked, input: `${asked.input}\n${both}`, output: better }
    }
    case 'classification': {
      const text = [row.text, row.text_pair].filter((part) => part !== undefined).join('\n')
      return { input: text, asked: text, ...labelsOf(row) }
    }
    case 'embedding': {
      const anchor = String(row.anchor)
      return { input: anchor, asked: anchor, output: String(row.positive) }
    }
    default:
      return format satisfies never
  }
}

function labelsOf(row: Row): { output: string; labels: readonly string[] } {
  if (typeof row.label === 'string') return { output: row.label, labels: [row.label] }
  const { labels, spans } = row as {
    labels?: string[]
    spans?: { start: number; end: number; label: string }[]
  }
  if (labels) return { output: [...labels].sort().join(', '), labels }
  const found = [...(spans ?? [])].sort((a, b) => a.start - b.start)
  return {
    output: found.map(({ start, end, label }) => `${start}–${end} ${label}`).join(', '),
    labels: [...new Set(found.map(({ label }) => label))],
  }
}

function chatText(
  messages: readonly TemplateMessage[],
  { tools, functions }: Row,
): Pick<RowText, 'input' | 'asked'> {
  const said = messages.map((message) => `${message.role}: ${answerText(message)}`)
  const offered = tools ?? functions
  return {
    input: [...(offered ? [JSON.stringify(offered)] : []), ...said].join('\n'),
    asked: messages
      .filter(({ role }) => role !== 'system' && role !== 'developer')
      .map(answerText)
      .join('\n'),
  }
}

/** What a message says, and what it calls. */
function answerText(message: TemplateMessage & { function_call?: unknown }): string {
  const { tool_calls, function_call } = message
  const calls = (tool_calls ?? (function_call === undefined ? [] : [function_call])).map((call) => {
    const called = isRecord(call) && isRecord(call.function) ? call.function : call
    return isRecord(called) ? `${called.name}(${called.arguments})` : ''
  })
  return [contentText(message.content), ...calls].filter((part) => part !== '').join('\n')
}

/** What a row of a reference file asks, whatever its format and whether or not it answers; undefined for none. */
export function askedOf(row: unknown): string | undefined {
  if (!isRecord(row)) return undefined
  for (const key of ['text', 'prompt', 'anchor', 'input'])
    if (typeof row[key] === 'string' && row[key] !== '')
      return [row[key], ...(typeof row.text_pair === 'string' ? [row.text_pair] : [])].join('\n')
  const messages = isRecord(row.input) ? row.input.messages : row.messages
  if (!Array.isArray(messages) || !messages.every(isRecord)) return undefined
  const chat = messages as readonly unknown[] as readonly TemplateMessage[]
  const asked = chatText(chat.at(-1)?.role === 'assistant' ? chat.slice(0, -1) : chat, {}).asked
  return asked.trim() === '' ? undefined : asked
}
