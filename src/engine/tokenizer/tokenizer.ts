// Text ↔ token ids. One interface for tokenizer.json and for a GGUF's own vocabulary.

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import type { Checkpoint } from '../weights/checkpoint.ts'
import { readFolderVocabulary } from './folder-vocabulary.ts'
import { readGgufVocabulary } from './gguf-vocabulary.ts'
import { tokenBytes } from './token-bytes.ts'
import type { TokenizerJson, Vocabulary } from './vocabulary.ts'

export interface Tokenizer {
  readonly vocab_size: number
  readonly bos_token_id: number | undefined
  /** Every id that ends a generation (eos_token_id may be a list; a chat model's end-of-turn is one of them); the tokenizer's own first. */
  readonly eos_token_ids: readonly number[]
  /** As chat templates know them; undefined where the model has none. */
  readonly bos_token: string | undefined
  readonly eos_token: string | undefined

  /** Text → ids. `special: true` adds what the model's post-processor adds (BOS); special tokens written in the text are parsed unless `parse_special: false`. */
  encode(text: string, options?: { special?: boolean; parse_special?: boolean }): number[]

  /** Ids → text, special tokens left out. Equals the joined `bytes` of the ids, the first of them taken as `first`. */
  decode(ids: readonly number[]): string

  /**
   * The raw bytes one id stands for in running text (special tokens: empty).
   * Joined over a generation they are its UTF-8 text: a code point may lie across several ids.
   * `first`: nothing but special tokens lies before this id. Tokenizers in the manner of llama 2 put a space
   * before every text, and take one leading space away here; a text that goes on from other text keeps it.
   */
  bytes(id: number, first?: boolean): Uint8Array

  /** Whether the id is a special token: parsed as one and left out of text. */
  isSpecial(id: number): boolean
}

/** The tokenizer that lies beside a model's weights, or inside its GGUF. */
export async function openTokenizer(checkpoint: Checkpoint): Promise<Tokenizer> {
  return buildTokenizer(
    checkpoint.format === 'gguf'
      ? await readGgufVocabulary(checkpoint.path)
      : await readFolderVocabulary(checkpoint.path),
  )
}

/** A tokenizer over vocabulary that is already in memory. */
export function buildTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { json, bos_token, eos_token } = vocabulary
  const parsing = new HuggingFaceTokenizer(json, { clean_up_tokenization_spaces: false })
  let literal: HuggingFaceTokenizer | undefined
  const { bytes, strips_leading_space } = tokenBytes(json)
  const specialIds = new Set(json.added_tokens.filter(({ special }) => special).map(({ id }) => id))

  const idOf = (token: string | undefined) =>
    token === undefined ? undefined : parsing.token_to_id(token)
  const eos = idOf(eos_token)
  const none = new Uint8Array(0)

  const tokenizer: Tokenizer = {
    vocab_size: bytes.length,
    bos_token_id: idOf(bos_token),
    eos_token_ids: [...new Set([...(eos === undefined ? [] : [eos]), ...vocabulary.eos_token_ids])],
    bos_token,
    eos_token,

    encode(text, { special = false, parse_special = true } = {}) {
      if (!parse_special)
        literal ??= new HuggingFaceTokenizer(withoutSpecialTokens(json), {
          clean_up_tokenization_spaces: false,
        })
      const chosen = parse_special || !literal ? parsing : literal
      return chosen.encode(text, { add_special_tokens: special }).ids
    },

    decode(ids) {
      let first = true
      const parts = ids.map((id) => {
        const part = tokenizer.bytes(id, first)
        if (!specialIds.has(id)) first = false
        return part
      })
      return Buffer.concat(parts).toString('utf8')
    },

    bytes(id, first = false) {
      if (specialIds.has(id)) return none
      const found = bytes[id] ?? none
      return first && strips_leading_space && found[0] === 0x20 ? found.subarray(1) : found
    },

    isSpecial: (id) => specialIds.has(id),
  }
  return tokenizer
}

const withoutSpecialTokens = (json: TokenizerJson): TokenizerJson => ({
  ...json,
  added_tokens: json.added_tokens.filter(({ special }) => !special),
})
