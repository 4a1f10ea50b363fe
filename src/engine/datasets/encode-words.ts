// A text encoded word by word, so that what is said of a token is said of a stretch of the text.

import type { EncodedTexts, Tokenizer } from '../tokenizer/tokenizer.ts'
import { type Word, wordsOf } from './words.ts'

export interface EncodedWords {
  readonly texts: EncodedTexts
  readonly words: readonly Word[]
  /** The place of each word's first token in `texts`; undefined for a word without tokens, or one that was cut off. */
  readonly firsts: readonly (number | undefined)[]
}

/** Encodes each word with the space before it; what the model puts around a text is put around them all. */
export function encodeWords(tokenizer: Tokenizer, text: string, most: number): EncodedWords {
  const around = tokenizer.encodeTexts('', undefined, most).ids
  const [before, after] = [around.slice(0, 1), around.slice(1)]
  const words = wordsOf(text)
  const ids = [...before]
  const room = most - after.length
  let truncated = false
  const firsts = words.map(({ from, end }, i) => {
    const piece = tokenizer.encode(text.slice(from, end), {
      parse_special: false,
      continues: i > 0,
    })
    if (piece.length === 0) return undefined
    if (truncated || ids.length + piece.length > room) {
      truncated = true
      return undefined
    }
    ids.push(...piece)
    return ids.length - piece.length
  })
  ids.push(...after)
  return { texts: { ids, types: ids.map(() => 0), truncated }, words, firsts }
}
