// Judges the tickets of examples/support-desk: the form must be exact, and the category right.

import { readFile } from 'node:fs/promises'
import type { ChatMessage } from '../engine/infer/request.ts'

export interface HeldOut {
  /** What both models are asked: the system prompt and the customer's message. */
  prompt: ChatMessage[]
  category: string
}

const CATEGORIES = new Set([
  'delivery',
  'defect',
  'return',
  'billing',
  'account',
  'order',
  'advice',
])

/** Reads held-out chat rows; the last message of each is the label. */
export async function readHeldOut(path: string): Promise<HeldOut[]> {
  const lines = (await readFile(path, 'utf8')).trimEnd().split('\n')
  return lines.map((line, i) => {
    const { messages } = JSON.parse(line) as { messages: ChatMessage[] }
    const category = parseTicket(messages.at(-1)?.content ?? '')
    if (category === undefined) throw new Error(`${path}, line ${i + 1}: the label is no ticket.`)
    return { prompt: messages.slice(0, -1), category }
  })
}

/** The category, if the text is one JSON object of exactly the ticket's form. */
export function parseTicket(text: string): string | undefined {
  let ticket: unknown
  try {
    ticket = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof ticket !== 'object' || ticket === null || Array.isArray(ticket)) return undefined
  const { category, product, urgent, ...rest } = ticket as Record<string, unknown>
  const exact =
    typeof category === 'string' &&
    CATEGORIES.has(category) &&
    (product === null || typeof product === 'string') &&
    typeof urgent === 'boolean' &&
    Object.keys(rest).length === 0
  return exact ? category : undefined
}
