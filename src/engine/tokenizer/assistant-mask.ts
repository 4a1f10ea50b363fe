// A chat as tokens, and which of them the model wrote itself. Serving's prompt and training's row are cut into tokens
// at the same places, so the one is a prefix of the other.

import { type ChatCoder, chatSpans, type Span } from './assistant-spans.ts'
import type { Chat } from './chat-template.ts'
import type { Tokenizer } from './tokenizer.ts'

export type { ChatCoder } from './assistant-spans.ts'

export interface MaskedTokens {
  readonly tokens: number[]
  /** 1 where the token is one that the assistant learns to write, else 0. */
  readonly weights: number[]
  /** Assistant messages of weight 1 that cannot be learned, for the template shows them otherwise in a longer chat. */
  readonly skipped: number
}

/**
 * Tokens of the prompt that asks the model for the next message. As it works it tells `atLeast` how many there will be
 * at least: who cannot use so many throws there, and is spared the rest.
 */
export function encodeChatPrompt(
  coder: ChatCoder,
  chat: Chat,
  atLeast: (tokens: number) => void = () => {},
): number[] {
  const { tokenizer } = coder
  const { text, spans } = chatSpans(coder, chat, true, (rendered) =>
    atLeast(tokenizer.fewestTokens(rendered)),
  )
  return encodeSpans(tokenizer, text, spans, atLeast).tokens
}

/**
 * Tokens of a whole chat. Learned are the assistant's messages of weight 1: their text and the token that ends the
 * turn. What follows the last learned token is left out. A template that never ends a turn gets an end after the last.
 */
export function encodeChatRow(coder: ChatCoder, chat: Chat): MaskedTokens {
  const { text, spans } = chatSpans(coder, chat, false)
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

/** Tokens span by span; `open` when the last span, of weight 1, holds no token that ends a turn. */
function encodeSpans(
  tokenizer: Tokenizer,
  text: string,
  spans: readonly Span[],
  atLeast: (tokens: number) => void = () => {},
) {
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
    atLeast(tokens.length)
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
