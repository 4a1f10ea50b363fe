// How a family's models write tool calls, told by what their chat template shows, and the grammar that holds them to it.

import type { GrammarSource } from '../grammar/request.ts'

/** Hermes and Qwen: `<tool_call>` around each; Mistral: one array; Llama 3: the bare object, one only. */
export type ToolSyntax = 'hermes' | 'mistral' | 'llama'

export interface Tool {
  readonly name: string
  /** Schema of the arguments as `prepareSchema` made it. */
  readonly schema: string
}

/** What the client will have: any text and calls of these tools where the model likes, or calls alone. */
export interface ToolUse {
  readonly tools: readonly Tool[]
  readonly required: boolean
  readonly parallel: boolean
}

export function syntaxOf(chat_template: string | undefined): ToolSyntax {
  if (chat_template?.includes('[TOOL_CALLS]')) return 'mistral'
  if (chat_template?.includes('<|start_header_id|>')) return 'llama'
  return 'hermes'
}

/** The grammar of an answer with tools; none where the model may write what it likes until it calls. */
export function grammarOfTools(
  syntax: ToolSyntax,
  { tools, required, parallel }: ToolUse,
): GrammarSource | undefined {
  if (!required && syntax !== 'hermes') return undefined
  const key = syntax === 'llama' ? 'parameters' : 'arguments'
  const [before, after] = syntax === 'hermes' ? ['<tool_call>\n', '\n</tool_call>'] : ['', '']
  const tags = tools.map(({ name, schema }) => ({
    type: 'tag',
    begin: `${before}{"name": ${JSON.stringify(name)}, "${key}": `,
    content: { type: 'json_schema', json_schema: JSON.parse(schema) },
    end: `}${after}`,
  }))
  const calls = {
    type: 'tags_with_separator',
    tags,
    separator: syntax === 'mistral' ? ', ' : '\n',
    at_least_one: true,
    stop_after_first: syntax === 'llama' || !parallel,
  }
  const text = (value: string) => ({ type: 'const_string', value })
  const format = !required
    ? { type: 'triggered_tags', triggers: ['<tool_call>'], tags, stop_after_first: !parallel }
    : syntax === 'mistral'
      ? { type: 'sequence', elements: [text('['), calls, text(']')] }
      : calls
  return {
    type: 'structural_tag',
    text: JSON.stringify({ type: 'structural_tag', format }),
    param: 'tools',
  }
}
