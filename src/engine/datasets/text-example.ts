// What training an encoder knows of one row: the tokens of its texts, and what is to be found in them.

import type { EncodedExample } from './encode.ts'
import type { Example } from './example.ts'

export interface TextExample extends Example {
  /** Tokens of each text that is read by itself, which lie in `tokens` end to end: anchor, positive, negative. */
  readonly parts: readonly number[]
  /** Whether a token belongs to the first or second text of a pair that is read as one. */
  readonly types: Int32Array
  /** Ids of labels: the one, all that apply, or one for each token with −1 where none is learned. */
  readonly classes: Int32Array
}

export interface EncodedTextExample extends EncodedExample, TextExample {}

/** Texts as one example; every token of them counts as learned from. */
export function textExample(
  line: number,
  texts: readonly { ids: readonly number[]; types: readonly number[]; truncated: boolean }[],
  classes: readonly number[] = [],
): EncodedTextExample {
  const tokens = Int32Array.from(texts.flatMap(({ ids }) => ids))
  return {
    line,
    tokens,
    weights: new Float32Array(tokens.length).fill(1),
    parts: texts.map(({ ids }) => ids.length),
    types: Int32Array.from(texts.flatMap(({ types }) => types)),
    classes: Int32Array.from(classes),
    truncated: texts.some(({ truncated }) => truncated),
    skipped: 0,
  }
}
