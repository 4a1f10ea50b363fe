// What a conversation of responses is made of: messages, calls of functions, what these gave back. Knows no HTTP.

import type { ChatMessage } from '../../engine/infer/request.ts'

export interface LogProb {
  token: string
  bytes: number[]
  logprob: number
  top_logprobs: Omit<LogProb, 'top_logprobs'>[]
}

export type MessagePart =
  | { type: 'input_text'; text: string }
  | { type: 'output_text'; text: string; annotations: []; logprobs: LogProb[] }
  | { type: 'refusal'; refusal: string }

export type ItemStatus = 'in_progress' | 'completed' | 'incomplete'

interface Kept {
  id: string
  status: ItemStatus
}

export type MessageItem = Kept & {
  type: 'message'
  role: 'user' | 'assistant' | 'system' | 'developer'
  content: MessagePart[]
}

export type CallItem = Kept & {
  type: 'function_call'
  call_id: string
  name: string
  /** JSON. */
  arguments: string
}

export type CallOutputItem = Kept & {
  type: 'function_call_output'
  call_id: string
  output: string | MessagePart[]
}

export type Item = MessageItem | CallItem | CallOutputItem

/** What a model answers with. */
export type OutputItem = MessageItem | CallItem

/** Messages as the engine takes them; calls go with the answer that they were made in. */
export function messagesOf(
  items: readonly Item[],
  instructions: string | null | undefined,
): ChatMessage[] {
  const messages: ChatMessage[] = []
  if (instructions) messages.push({ role: 'system', content: instructions })
  for (const item of items) {
    switch (item.type) {
      case 'message': {
        const role = item.role === 'developer' ? 'system' : item.role
        messages.push({ role, content: textOf(item.content) })
        break
      }
      case 'function_call': {
        const { call_id: id, name, arguments: args } = item
        const call = { id, type: 'function', function: { name, arguments: args } }
        const last = messages.at(-1)
        if (last?.role === 'assistant') last.tool_calls = [...(last.tool_calls ?? []), call]
        else messages.push({ role: 'assistant', content: '', tool_calls: [call] })
        break
      }
      case 'function_call_output': {
        const { call_id: tool_call_id, output } = item
        messages.push({ role: 'tool', content: textOf(output), tool_call_id })
        break
      }
      default:
        item satisfies never
    }
  }
  return messages
}

const textOf = (content: string | readonly MessagePart[]): string =>
  typeof content === 'string'
    ? content
    : content.map((part) => (part.type === 'refusal' ? part.refusal : part.text)).join('')

/**
 * Without its `turns` oldest turns; what the system says stays. A turn begins where the user speaks, so that no
 * result is left without its call. Undefined where nothing but the last turn would be left to go.
 */
export function withoutOldest(
  messages: readonly ChatMessage[],
  turns: number,
): ChatMessage[] | undefined {
  const begins = messages.flatMap(({ role }, at) => (role === 'user' ? [at] : []))
  const from = begins[Math.min(turns, begins.length - 1)]
  if (from === undefined || begins.length < 2) return undefined
  return messages.filter(({ role }, at) => at >= from || role === 'system')
}
