// Tools for a chat template that knows none: as words of the system, the assistant and the user. Training and serving
// read a chat through here alike.

import { type Chat, contentText, type TemplateMessage } from './chat-template.ts'

/** The chat as the template shows it: as it is, or, where there are tools and the template knows none, told in words. */
export function toolsInWords(chat: Chat, chat_template: string | undefined): Chat {
  const { messages, tools } = chat
  const called = messages.some(({ role, tool_calls }) => role === 'tool' || tool_calls)
  if (!(tools?.length || called) || knowsTools(chat_template)) return chat
  const told = messages.map(inWords)
  if (!tools?.length) return { messages: told }
  const system = told[0]?.role === 'system' ? told.shift() : undefined
  const content = [contentText(system?.content), describe(tools)].filter(Boolean).join('\n\n')
  return { messages: [{ ...system, role: 'system', content }, ...told] }
}

const knowsTools = (chat_template: string | undefined): boolean =>
  /\btools\b/.test(chat_template ?? '')

function inWords({ role, content, tool_calls, weight }: TemplateMessage): TemplateMessage {
  const text = contentText(content)
  if (role === 'tool')
    return { role: 'user', content: `<tool_response>\n${text}\n</tool_response>` }
  return {
    role,
    content: [text, ...(tool_calls ?? []).map(callText)].filter(Boolean).join('\n'),
    ...(weight !== undefined && { weight }),
  }
}

function callText(call: unknown): string {
  const { function: called } = call as { function: { name: string; arguments: string } }
  return `<tool_call>\n{"name": ${JSON.stringify(called.name)}, "arguments": ${called.arguments}}\n</tool_call>`
}

/** What the system says of them, in Hermes' words. */
const describe = (tools: readonly unknown[]): string =>
  `You may call functions. Their signatures:\n<tools>\n${tools
    .map((tool) => JSON.stringify(tool))
    .join(
      '\n',
    )}\n</tools>\nFor each call write a JSON object with the function's name and its arguments:\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>`
