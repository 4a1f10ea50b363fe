// Tokens told with their log-probabilities: names, bytes, places. Knows logits and a tokenizer; no batch, no device.

import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import { logprobsOf } from './logprobs.ts'
import type { GenerateRequest, ListedToken, TokenLogprob } from './request.ts'
import { codePoints, type Described } from './sequence.ts'
import { createTextStream } from './text-stream.ts'

interface Options {
  /** How many alternatives. */
  top: number
  tokenizer: Tokenizer
  /** Nothing but special tokens lies before. */
  first?: boolean
}

/** A token at the place that these logits are of. */
export function describeToken(logits: Float32Array, token: number, options: Options): Described {
  const { logprob, top } = logprobsOf(logits, token, options.top)
  return {
    ...nameToken(token, options),
    logprob,
    top: top.map(({ id, logprob }) => ({ ...nameToken(id, options), logprob })),
  }
}

/** A prompt that is given back; `score` fills in the log-probabilities as they are computed. */
export interface EchoedPrompt {
  readonly text: string
  readonly tokens: ListedToken<number | null>[]
  /** Row i is of the place of token `from` + i. */
  score(from: number, rows: readonly Float32Array[], options: Options): void
}

/**
 * A text comes back as it was sent, token ids as their text without special tokens. Offsets run over that;
 * special tokens that are written in a text have their length there.
 */
export function echoOf(
  prompt: GenerateRequest['prompt'],
  ids: readonly number[],
  tokenizer: Tokenizer,
): EchoedPrompt {
  const text = 'text' in prompt ? prompt.text : tokenizer.decode(ids)
  const written = 'text' in prompt ? Array.from(text) : []
  const stream = createTextStream()
  const firsts: boolean[] = []
  let first = true
  let offset = 0
  const tokens = ids.map((id): ListedToken<number | null> => {
    firsts.push(first)
    const listed = { ...nameToken(id, { tokenizer, first }), logprob: null, offset, top: [] }
    offset += codePoints(stream.push(tokenizer.bytes(id, first)))
    const name = tokenizer.nameOf(id)
    if (name === undefined) first = false
    else if (
      written
        .slice(offset, offset + name.length)
        .join('')
        .startsWith(name)
    )
      offset += codePoints(name)
    return listed
  })
  return {
    text,
    tokens,
    score(from, rows, options) {
      for (const [i, row] of rows.entries()) {
        const id = ids[from + i]
        if (id === undefined) return // the last row is of the first new token
        const { offset } = tokens[from + i]!
        const first = firsts[from + i]!
        tokens[from + i] = { ...describeToken(row, id, { ...options, first }), offset }
      }
    },
  }
}

function nameToken(id: number, { tokenizer, first = false }: Options | Omit<Options, 'top'>) {
  const name = tokenizer.nameOf(id)
  if (name !== undefined) return { token: name, bytes: null }
  const bytes = [...tokenizer.bytes(id, first)]
  return { token: textOf(bytes), bytes } satisfies Omit<TokenLogprob, 'logprob'>
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Bytes that are no text by themselves are written as OpenAI does it. */
function textOf(bytes: readonly number[]): string {
  try {
    return utf8.decode(Uint8Array.from(bytes))
  } catch {
    return bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
  }
}
