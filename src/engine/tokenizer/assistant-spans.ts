// Which characters of a chat the model wrote itself, found by rendering the chat turn by turn, never by guessing at
// markers. Knows no tokens.

import { ApiError } from '../../errors.ts'
import { type Chat, renderChat, type TemplateMessage } from './chat-template.ts'
import type { Tokenizer } from './tokenizer.ts'
import { toolsInWords } from './tools-in-words.ts'

/** A model's tokenizer and its template. */
export interface ChatCoder {
  readonly tokenizer: Tokenizer
  readonly chat_template: string | undefined
}

/** Characters `begin` to `end` of the rendered chat are one assistant message and what ends it. */
export interface Span {
  readonly begin: number
  readonly end: number
  readonly weight: number
}

/** Messages rendered for one chat, a thousand characters counting as one more: one or two seconds of work. */
const MOST_RENDERED = 100_000

type Messages = readonly TemplateMessage[]
type Render = (messages: Messages, add_generation_prompt: boolean) => string

/**
 * The rendered chat, with the prompt for the next message or without, and the assistant's spans in it. `onText` may
 * throw before the spans are looked for. 400 (param `messages`) where the template makes that too much work.
 */
export function chatSpans(
  coder: ChatCoder,
  chat: Chat,
  prompt: boolean,
  onText: (text: string) => void = () => {},
): { text: string; spans: Span[] } {
  const shown = toolsInWords(chat, coder.chat_template)
  const { messages } = shown
  const render = countedRender(coder, shown)
  const text = render(messages, prompt)
  onText(text)
  const spans =
    spansTurnByTurn(render, messages, text, prompt) ?? spansOf(render, messages, text, { prompt })
  return { text, spans }
}

/** The work is counted, not timed: the same chat is refused always or never. */
function countedRender({ tokenizer, chat_template }: ChatCoder, { tools }: Chat): Render {
  let rendered = 0
  return (messages, add_generation_prompt) => {
    if (rendered > MOST_RENDERED) throw new TooManyTurns()
    const text = renderChat(chat_template, messages, {
      add_generation_prompt,
      bos_token: tokenizer.bos_token,
      eos_token: tokenizer.eos_token,
      tools,
    })
    rendered += messages.length + text.length / 1000
    return text
  }
}

class TooManyTurns extends ApiError {
  constructor() {
    super(
      400,
      "The model's chat template shows a turn differently once more follow, and these messages are too many to find each turn. Please reduce the number of messages.",
      { param: 'messages', code: 'chat_template_timeout' },
    )
  }
}

/**
 * The spans of a long chat, each turn (from a user's message to the assistant's last) rendered by itself behind the
 * first one. That takes a few renders of a few messages a turn. Undefined unless every turn so rendered stands in the
 * text at its place, they make up the whole of it, and every assistant message has its span.
 */
function spansTurnByTurn(
  render: Render,
  messages: Messages,
  text: string,
  prompt: boolean,
): Span[] | undefined {
  const starts = [...messages.keys()].filter(
    (i) => messages[i]!.role === 'user' && messages[i - 1]?.role === 'assistant',
  )
  if (starts.length < 2) return undefined
  const head = messages.slice(0, starts[0])
  try {
    const opening = render(head, false)
    if (!text.startsWith(opening)) return undefined
    const spans = spansOf(render, head, opening, { prompt: false })
    let at = opening.length
    for (const [k, start] of starts.entries()) {
      const chat = [...head, ...messages.slice(start, starts[k + 1])]
      const asks = prompt && k + 1 === starts.length
      const window = render(chat, asks)
      if (!window.startsWith(opening)) return undefined
      if (!text.startsWith(window.slice(opening.length), at)) return undefined
      const found = spansOf(render, chat, window, { prompt: asks, from: head.length })
      if (found.some(({ begin }) => begin < opening.length)) return undefined
      const shift = at - opening.length
      for (const { begin, end, weight } of found)
        spans.push({ begin: begin + shift, end: end + shift, weight })
      at += window.length - opening.length
    }
    const assistants = messages.filter(({ role }) => role === 'assistant')
    return at === text.length && spans.length === assistants.length ? spans : undefined
  } catch (error) {
    // A template may refuse the shorter chat, not the whole one.
    if (!(error instanceof ApiError) || error instanceof TooManyTurns) throw error
    return undefined
  }
}

/**
 * The prompt before each assistant message and the chat through it; the difference is what the model writes.
 * A template that shows an earlier turn differently once more turns follow has no such difference there: those turns
 * are part of the prompt, and only from the first turn on that stays as it was are turns found.
 */
function spansOf(
  render: Render,
  messages: Messages,
  text: string,
  { prompt, from = 0 }: { prompt: boolean; from?: number },
): Span[] {
  const spans: Span[] = []
  for (let i = from; i < messages.length; i++) {
    const message = messages[i]!
    if (message.role !== 'assistant') continue
    const whole = !prompt && i + 1 === messages.length
    const through = whole ? text : render(messages.slice(0, i + 1), false)
    if (!text.startsWith(through)) continue
    const begin =
      promptLength(render, messages, i, through) ?? contentStart(render, messages, i, through) ?? -1
    if (begin < (spans.at(-1)?.end ?? 0)) continue
    spans.push({ begin, end: through.length, weight: message.weight ?? 1 })
  }
  return spans
}

/** Where message i begins: after the prompt that asks for it. */
function promptLength(render: Render, messages: Messages, i: number, through: string) {
  // Without a message before it a template shows another prompt, or none.
  if (i === 0) return undefined
  const prompt = render(messages.slice(0, i), true)
  return through.startsWith(prompt) ? prompt.length : undefined
}

/** Where the chat with message i first parts from the chat with another text in its place. */
function contentStart(render: Render, messages: Messages, i: number, through: string) {
  const other = render([...messages.slice(0, i), { ...messages[i]!, content: '\u{E000}' }], false)
  const at = other.indexOf('\u{E000}')
  return at >= 0 && through.startsWith(other.slice(0, at)) ? at : undefined
}
