// Which tokens of a chat the model wrote itself, found by rendering the chat turn by turn, never by guessing at markers.
// Serving's prompt and training's row are cut into tokens at the same places, so the one is a prefix of the other.

import { renderChat, type TemplateMessage } from './chat-template.ts'
import type { Tokenizer } from './tokenizer.ts'

/** A model's tokenizer and its template. */
export interface ChatCoder {
  readonly tokenizer: Tokenizer
  readonly chat_template: string | undefined
}

export interface Chat {
  readonly messages: readonly TemplateMessage[]
  readonly tools?: readonly unknown[] | undefined
}

export interface MaskedTokens {
  readonly tokens: number[]
  /** 1 where the token is one that the assistant learns to write, else 0. */
  readonly weights: number[]
  /** Assistant messages of weight 1 that cannot be learned, for the template shows them otherwise in a longer chat. */
  readonly skipped: number
}

/** Tokens of the prompt that asks the model for the next message. */
export function encodeChatPrompt(coder: ChatCoder, chat: Chat): number[] {
  const text = render(coder, chat, chat.messages, true)
  const spans = assistantSpans(coder, chat, text, true)
  return encodeSpans(coder.tokenizer, text, spans).tokens
}

/**
 * Tokens of a whole chat. Learned are the assistant's messages of weight 1: their text and the token that ends the
 * turn. What follows the last learned token is left out. A template that never ends a turn gets an end after the last.
 */
export function encodeChatRow(coder: ChatCoder, chat: Chat): MaskedTokens {
  const text = render(coder, chat, chat.messages, false)
  const spans = assistantSpans(coder, chat, text, false)
  const { tokens, weights, open } = encodeSpans(coder.tokenizer, text, spans)
  const end = coder.tokenizer.eos_token_ids[0]
  if (open && end !== undefined) {
    tokens.push(end)
    weights.push(1)
  }
  const length = weights.lastIndexOf(1) + 1 || tokens.length
  const learnable = (list: readonly { weight?: number }[]) =>
    list.filter(({ weight }) => weight !== 0).length
  const assistants = chat.messages.filter(({ role }) => role === 'assistant')
  return {
    tokens: tokens.slice(0, length),
    weights: weights.slice(0, length),
    skipped: learnable(assistants) - learnable(spans),
  }
}

/** Characters `begin` to `end` of the rendered chat are one assistant message and what ends it. */
interface Span {
  readonly begin: number
  readonly end: number
  readonly weight: number
}

/**
 * The prompt before each assistant message and the chat through it; the difference is what the model writes.
 * A template that shows an earlier turn differently once more turns follow has no such difference there: those turns
 * are part of the prompt, and only from the first turn on that stays as it was are turns found.
 */
function assistantSpans(coder: ChatCoder, chat: Chat, text: string, prompt: boolean): Span[] {
  const spans: Span[] = []
  for (const [i, message] of chat.messages.entries()) {
    if (message.role !== 'assistant') continue
    const whole = !prompt && i + 1 === chat.messages.length
    const through = whole ? text : render(coder, chat, chat.messages.slice(0, i + 1), false)
    if (!text.startsWith(through)) continue
    const begin =
      promptLength(coder, chat, i, through) ?? contentStart(coder, chat, i, through) ?? -1
    if (begin < (spans.at(-1)?.end ?? 0)) continue
    spans.push({ begin, end: through.length, weight: message.weight ?? 1 })
  }
  return spans
}

/** Where message i begins: after the prompt that asks for it. */
function promptLength(coder: ChatCoder, chat: Chat, i: number, through: string) {
  const before = chat.messages.slice(0, i)
  // Without a message before it a template shows another prompt, or none.
  if (before.length === 0) return undefined
  const prompt = render(coder, chat, before, true)
  return through.startsWith(prompt) ? prompt.length : undefined
}

/** Where the chat with message i first parts from the chat with another text in its place. */
function contentStart(coder: ChatCoder, chat: Chat, i: number, through: string) {
  const message = chat.messages[i]!
  const other = render(
    coder,
    chat,
    [...chat.messages.slice(0, i), { ...message, content: '\u{E000}' }],
    false,
  )
  const at = other.indexOf('\u{E000}')
  return at >= 0 && through.startsWith(other.slice(0, at)) ? at : undefined
}

/** Tokens span by span; `open` when the last span, of weight 1, holds no token that ends a turn. */
function encodeSpans(tokenizer: Tokenizer, text: string, spans: readonly Span[]) {
  const tokens: number[] = []
  const weights: number[] = []
  let open = false
  const append = (from: number, to: number, weight: number) => {
    if (to <= from) return
    const last = tokens.at(-1)
    const continues = last !== undefined && !tokenizer.isSpecial(last)
    const ids = tokenizer.encode(text.slice(from, to), { continues })
    const end = weight ? ids.findLastIndex((id) => tokenizer.eos_token_ids.includes(id)) : -1
    open = weight > 0 && end < 0
    const learned = weight === 0 ? 0 : end < 0 ? ids.length : end + 1
    for (const [k, id] of ids.entries()) {
      tokens.push(id)
      weights.push(k < learned ? 1 : 0)
    }
  }
  let at = 0
  for (const { begin, end, weight } of spans) {
    append(at, begin, 0)
    append(begin, end, weight)
    at = end
  }
  append(at, text.length, 0)
  return { tokens, weights, open }
}

const render = (
  { tokenizer, chat_template }: ChatCoder,
  { tools }: Chat,
  messages: readonly TemplateMessage[],
  add_generation_prompt: boolean,
) =>
  renderChat(chat_template, messages, {
    add_generation_prompt,
    bos_token: tokenizer.bos_token,
    eos_token: tokenizer.eos_token,
    tools,
  })
