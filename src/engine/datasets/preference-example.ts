// A row of preferences as tokens: both texts in one example, so that they stay together whatever is packed.

import { encodeChatRow } from '../tokenizer/assistant-mask.ts'
import type { TemplateMessage } from '../tokenizer/chat-template.ts'
import { type EncodedExample, type EncodeOptions, type RowEncoder, RowFault } from './encode.ts'
import type { Example } from './example.ts'
import { chatOf, type Json } from './messages.ts'
import { nameOf, SIDES } from './preference-rows.ts'

/** Two texts in one: first the conversation with the preferred answer, then with the other. */
export interface PreferenceExample extends Example {
  /** Tokens of the first. */
  readonly preferred: number
}

/** Encodes both texts of a row; each is cut by itself. */
export const preferenceEncoder = (options: EncodeOptions): RowEncoder => ({
  formats: ['preference'],
  encode(line, row): EncodedExample & PreferenceExample {
    const { messages, tools } = chatOf(row.input as Json)
    const asked = messages.map((message) =>
      message.role === 'assistant' ? { ...message, weight: 0 } : message,
    )
    const sides = SIDES.map((names) => {
      const name = nameOf(row, names)
      const answer = (row[name] as readonly TemplateMessage[])[0]!
      const encoded = encodeChatRow(options, {
        messages: [...asked, { ...answer, weight: 1 }],
        tools,
      })
      const tokens = encoded.tokens.slice(0, options.max_sequence_length)
      const weights = encoded.weights.slice(0, tokens.length)
      const truncated = tokens.length < encoded.tokens.length
      if (!truncated && !weights.includes(1))
        throw new RowFault('nothing_to_learn', `/${name}`, `holds nothing to learn in '${name}'`)
      return { tokens, weights, truncated }
    })
    // Of a pair that lost one of its answers nothing is learned.
    const whole = sides.every(({ weights }) => weights.includes(1))
    return {
      line,
      tokens: Int32Array.from(sides.flatMap(({ tokens }) => tokens)),
      // Nothing predicts the first token of either.
      weights: Float32Array.from(
        sides.flatMap(({ weights }) => [0, ...weights.slice(1).map((w) => (whole ? w : 0))]),
      ),
      preferred: sides[0]!.tokens.length,
      truncated: sides.some(({ truncated }) => truncated),
      skipped: 0,
    }
  },
})
