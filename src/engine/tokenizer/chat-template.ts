// Messages → text, by the model's own Jinja template as transformers renders it. Knows no tokens.
// A template is the model's code: it is interpreted, can neither reach a file nor the network, and gets a time limit.
// It blocks its thread so long: call this in a worker.

import { Template } from '@huggingface/jinja'
import { ApiError, invalidRequest } from '../../errors.ts'
import { TimeLimit, withTimeLimit } from '../runtime/time-limit.ts'

/** Honest templates take a few milliseconds. */
const TIME_LIMIT = 2000

export interface TextPart {
  readonly type: string
  readonly text?: string
}

/** A message as OpenAI's clients write it. */
export interface TemplateMessage {
  readonly role: string
  readonly content?: string | null | readonly TextPart[]
  readonly name?: string
  readonly tool_calls?: readonly unknown[]
  readonly tool_call_id?: string
  /** The row's business alone: no template sees it. */
  readonly weight?: number
}

export interface Chat {
  readonly messages: readonly TemplateMessage[]
  readonly tools?: readonly unknown[] | undefined
}

export interface RenderOptions {
  readonly add_generation_prompt: boolean
  readonly bos_token?: string | undefined
  readonly eos_token?: string | undefined
  readonly tools?: readonly unknown[] | undefined
}

/**
 * Renders messages; 400 `chat_template_missing` (param `model`) without a template, 400 (param `messages`) when the
 * template refuses them or does not come to an end. Blocks are trimmed as transformers sets Jinja up; the library does so by itself.
 */
export function renderChat(
  chat_template: string | undefined,
  messages: readonly TemplateMessage[],
  { add_generation_prompt, bos_token, eos_token, tools }: RenderOptions,
): string {
  const template = parseTemplate(chat_template)
  const plain = messages.map(plainMessage)
  try {
    return withTimeLimit(TIME_LIMIT, () =>
      template.render({
        messages: plain,
        add_generation_prompt,
        bos_token: bos_token ?? '',
        eos_token: eos_token ?? '',
        tools: tools && tools.length > 0 ? tools : null,
        documents: null,
      }),
    )
  } catch (cause) {
    if (cause instanceof TimeLimit)
      throw new ApiError(400, `The model's chat template was ${cause.message}.`, {
        param: 'messages',
        code: 'chat_template_timeout',
      })
    // raise_exception() throws the template's own words; any other failure is one of these messages too.
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw invalidRequest(`The model's chat template refuses these messages: ${reason}`, {
      param: 'messages',
    })
  }
}

const MOST_PARSED = 16
const parsed = new Map<string, Template>()

/** Throws where there is none, or where it is no template. */
export function parseTemplate(text: string | undefined): Template {
  if (text === undefined)
    throw new ApiError(
      400,
      'The model has no chat template, so it cannot take messages. Use completions, or put a chat_template.jinja beside its weights.',
      { param: 'model', code: 'chat_template_missing' },
    )
  let template = parsed.get(text)
  if (!template) {
    try {
      template = new Template(text)
    } catch (cause) {
      throw new Error("The model's chat template cannot be parsed.", { cause })
    }
    if (parsed.size >= MOST_PARSED) parsed.clear()
    parsed.set(text, template)
  }
  return template
}

/** Text parts joined, null as '', arguments of tool calls as objects: what templates are written for. */
function plainMessage(message: TemplateMessage): Record<string, unknown> {
  const { weight: _, content, tool_calls, ...rest } = message
  return {
    ...rest,
    content: contentText(content),
    ...(tool_calls ? { tool_calls: tool_calls.map(parseArguments) } : {}),
  }
}

/** The text of a message's content. */
export function contentText(content: TemplateMessage['content']): string {
  if (content === undefined || content === null) return ''
  if (typeof content === 'string') return content
  return content.map(({ text }) => text ?? '').join('')
}

function parseArguments(call: unknown): unknown {
  const { function: called } = call as { function?: { arguments?: unknown } }
  if (typeof called?.arguments !== 'string') return call
  try {
    return { ...(call as object), function: { ...called, arguments: JSON.parse(called.arguments) } }
  } catch {
    return call
  }
}
