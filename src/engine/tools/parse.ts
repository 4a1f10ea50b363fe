// Text of an answer → what is said and what is called. Takes it piece by piece; what may become a call is held back.

import type { ToolSyntax } from './syntax.ts'

export interface ToolCall {
  name: string
  /** JSON. */
  arguments: string
}

export interface Parsed {
  content: string
  calls: ToolCall[]
}

export interface ToolParser {
  push(text: string): Parsed
  /** The end; what was held back and is no call is content. */
  end(): Parsed
}

const OPEN = '<tool_call>'
const CLOSE = '</tool_call>'

export function createToolParser(syntax: ToolSyntax, names: readonly string[]): ToolParser {
  let held = ''
  let called = false
  const known = new Set(names)

  function callsIn(text: string): ToolCall[] | undefined {
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch {
      return undefined
    }
    const calls = [value].flat().map((call) => toCall(call, known))
    return calls.length > 0 && calls.every((call) => call !== undefined) ? calls : undefined
  }

  /** Up to the marker, and what might become one, text is told at once. */
  function hermes(): Parsed {
    const out: Parsed = { content: '', calls: [] }
    while (held !== '') {
      const at = held.indexOf(OPEN)
      if (at < 0) {
        const keep = overlap(held, OPEN)
        out.content += held.slice(0, held.length - keep)
        held = held.slice(held.length - keep)
        break
      }
      out.content += held.slice(0, at)
      held = held.slice(at)
      const close = held.indexOf(CLOSE)
      if (close < 0) break
      const calls = callsIn(held.slice(OPEN.length, close).trim())
      if (calls) out.calls.push(...calls)
      else out.content += held.slice(0, close + CLOSE.length)
      held = held.slice(close + CLOSE.length)
    }
    if (called || out.calls.length > 0) out.content = out.content.trim()
    called ||= out.calls.length > 0
    return out
  }

  /** A call is the whole answer: from the first letter it is one or none. */
  function whole(): Parsed {
    const start = held.trimStart()
    const opens =
      syntax === 'mistral'
        ? start === '' || start.startsWith('[') || '[TOOL_CALLS]'.startsWith(start)
        : start === '' || start.startsWith('{') || '<|python_tag|>'.startsWith(start.slice(0, 14))
    if (opens) return { content: '', calls: [] }
    const content = held
    held = ''
    return { content, calls: [] }
  }

  return {
    push(text) {
      held += text
      return syntax === 'hermes' ? hermes() : whole()
    },
    end() {
      const text = held
      held = ''
      const body = text.trim().replace(/^(\[TOOL_CALLS\]|<\|python_tag\|>|<tool_call>)/, '')
      const calls = callsIn(body.trim())
      return calls ? { content: '', calls } : { content: called ? text.trim() : text, calls: [] }
    },
  }
}

function toCall(value: unknown, known: ReadonlySet<string>): ToolCall | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { name, arguments: args, parameters } = value as Record<string, unknown>
  if (typeof name !== 'string' || !known.has(name)) return undefined
  const given = args ?? parameters ?? {}
  return { name, arguments: typeof given === 'string' ? given : JSON.stringify(given) }
}

/** How much of the end of `text` begins `marker`. */
function overlap(text: string, marker: string): number {
  for (let n = Math.min(text.length, marker.length - 1); n > 0; n--)
    if (marker.startsWith(text.slice(-n))) return n
  return 0
}
