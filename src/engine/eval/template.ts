// `{{ item.field }}` and `{{ sample.output_text }}`: what stands between the braces is a path, never code.

import { invalidRequest } from '../../errors.ts'
import { GradeError, type MessageContent, type Subject, type TemplateMessage } from './grader.ts'

/** The longest text that a template may become, in UTF-16 units. */
export const MAX_RENDERED = 1_000_000

/** Longer ones are refused: the texts of a row come on top. */
export const MAX_TEMPLATE = 100_000

const PLACEHOLDER = /\{\{([^{}]{0,200})\}\}/g
const PATH = /^\s*(item|sample)((?:\.[^.[\]\s]+|\[\d+\])*)\s*$/

/** Throws where a template is too long, or where a placeholder is no path into `item` or `sample`. */
export function checkTemplate(template: string, param: string): void {
  const fail = (message: string) => invalidRequest(message, { param, code: 'invalid_template' })
  if (template.length > MAX_TEMPLATE)
    throw fail(
      `Invalid '${param}': the template has ${template.length} characters, expected at most ${MAX_TEMPLATE}.`,
    )
  for (const [whole, inner = ''] of template.matchAll(PLACEHOLDER))
    if (!PATH.test(inner))
      throw fail(
        `Invalid '${param}': the placeholder \`${whole}\` names neither a field of \`item\` nor of \`sample\`.`,
      )
}

/** Throws where a message is no text, or a placeholder of it no path. */
export function checkMessages(messages: readonly TemplateMessage[], param: string): void {
  for (const [i, { content }] of messages.entries()) {
    const where = `${param}[${i}].content`
    for (const part of [content].flat()) {
      const type = typeof part === 'string' ? 'input_text' : part.type
      const text = typeof part === 'string' ? part : part.text
      if (!['input_text', 'output_text', 'text'].includes(type) || text === undefined)
        throw invalidRequest(
          `Invalid '${where}': a part of type '${type}'. Models here read text only: 'input_text' or 'output_text'.`,
          { param: where, code: 'unsupported_content' },
        )
      checkTemplate(text, where)
    }
  }
}

/** Puts what the subject has in the place of each placeholder: text as it is, everything else as JSON. */
export function render(template: string, subject: Subject): string {
  const parts: string[] = []
  let [length, from] = [0, 0]
  const push = (text: string) => {
    length += text.length
    if (length > MAX_RENDERED)
      throw new GradeError(
        'other_error',
        `A template becomes longer than ${MAX_RENDERED} characters.`,
      )
    parts.push(text)
  }
  for (const match of template.matchAll(PLACEHOLDER)) {
    push(template.slice(from, match.index))
    push(textOf(valueAt(match[1] ?? '', subject)))
    from = match.index + match[0].length
  }
  push(template.slice(from))
  return parts.join('')
}

/** The texts of a message's parts, joined and filled in. */
export const renderContent = (content: MessageContent, subject: Subject): string =>
  [content]
    .flat()
    .map((part) => render(typeof part === 'string' ? part : (part.text ?? ''), subject))
    .join('')

/** What a path such as `item.choices[0].text` names; throws `invalid_variable_error` where there is nothing. */
export function valueAt(path: string, subject: Subject): unknown {
  const [, root, rest = ''] = PATH.exec(path) ?? []
  let value: unknown =
    root === 'item' ? subject.item : root === 'sample' ? subject.sample : undefined
  for (const [, name, index] of rest.matchAll(/\.([^.[\]\s]+)|\[(\d+)\]/g)) {
    const key = name ?? index ?? ''
    value =
      typeof value === 'object' && value !== null && Object.hasOwn(value, key)
        ? (value as Record<string, unknown>)[key]
        : undefined
  }
  if (value === undefined)
    throw new GradeError('invalid_variable_error', `There is no \`${path.trim()}\` in this row.`)
  return value
}

const textOf = (value: unknown): string =>
  typeof value === 'string' ? value : JSON.stringify(value)
