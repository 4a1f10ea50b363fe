// From a row to the messages that a model is asked with.

import { GradeError, type Subject, type TemplateMessage } from './grader.ts'
import { renderContent, valueAt } from './template.ts'

/** As the API has it: a template, or the name of a field that holds the messages. */
export type InputMessages =
  | { type: 'template'; template: TemplateMessage[] }
  | { type: 'item_reference'; item_reference: string }

export interface PromptMessage {
  role: string
  content: string
}

/** Throws GradeError where the row lacks what is named, or where it is no list of messages. */
export function promptOf(input: InputMessages, subject: Subject): PromptMessage[] {
  if (input.type === 'template')
    return input.template.map(({ role, content }) => ({
      role: systemOr(role),
      content: renderContent(content, subject),
    }))
  const found = valueAt(input.item_reference, subject)
  if (typeof found === 'string') return [{ role: 'user', content: found }]
  if (!Array.isArray(found) || found.length === 0)
    throw new GradeError(
      'invalid_variable_error',
      `\`${input.item_reference}\` is no conversation.`,
    )
  return found.map((message: unknown, i) => {
    const { role, content } = (message ?? {}) as { role?: unknown; content?: unknown }
    if (typeof role === 'string' && typeof content === 'string')
      return { role: systemOr(role), content }
    throw new GradeError(
      'invalid_variable_error',
      `\`${input.item_reference}[${i}]\` is no message with a role and a text.`,
    )
  })
}

const systemOr = (role: string) => (role === 'developer' ? 'system' : role)
