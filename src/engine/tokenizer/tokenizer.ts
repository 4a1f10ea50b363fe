// Text ↔ token ids. One interface for tokenizer.json and for a GGUF's own vocabulary.

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import type { Checkpoint } from '../weights/checkpoint.ts'
import { cutTexts } from './cut-texts.ts'
import { fewestTokens } from './fewest-tokens.ts'
import { readFolderVocabulary } from './folder-vocabulary.ts'
import { readGgufVocabulary } from './gguf-vocabulary.ts'
import { tokenBytes } from './token-bytes.ts'
import {
  putsSpaceBefore,
  specialFinder,
  type Vocabulary,
  withAllDigits,
  withoutSpaceBefore,
  withoutSpecialTokens,
} from './vocabulary.ts'

export interface EncodeOptions {
  special?: boolean
  parse_special?: boolean
  continues?: boolean
}

/** Tokens, and for each of them whether it belongs to the first text (0) or the second (1). */
export interface EncodedTexts {
  readonly ids: readonly number[]
  readonly types: readonly number[]
  readonly truncated: boolean
}

export interface Tokenizer {
  readonly vocab_size: number
  readonly bos_token_id: number | undefined
  /** Every id that ends a generation (eos_token_id may be a list; a chat model's end-of-turn is one of them); the tokenizer's own first. */
  readonly eos_token_ids: readonly number[]
  /** As chat templates know them; undefined where the model has none. */
  readonly bos_token: string | undefined
  readonly eos_token: string | undefined

  /**
   * Text → ids. `special: true` adds what the model's post-processor adds (BOS); special tokens written in the text
   * are parsed unless `parse_special: false`. `continues: true`: the text goes on from other text, so tokenizers in
   * the manner of llama 2 put no space before it; joined `bytes` of its ids are the text exactly.
   */
  encode(text: string, options?: EncodeOptions): number[]

  /**
   * A text, or two, as an encoder reads them: with what the model's post-processor puts before, between and after.
   * Tokens beyond `most` are cut from the end of the longer text.
   */
  encodeTexts(first: string, second: string | undefined, most: number): EncodedTexts

  /** Ids → text, special tokens left out. Equals the joined `bytes` of the ids, the first of them taken as `first`. */
  decode(ids: readonly number[]): string

  /**
   * The raw bytes one id stands for in running text (special tokens: empty).
   * Joined over a generation they are its UTF-8 text: a code point may lie across several ids.
   * `first`: nothing but special tokens lies before this id. Tokenizers in the manner of llama 2 put a space
   * before every text, and take one leading space away here; a text that goes on from other text keeps it.
   */
  bytes(id: number, first?: boolean): Uint8Array

  /** No encoding of the text has fewer tokens than this. Cheap, and far from exact; 0 where nothing is known. */
  fewestTokens(text: string): number

  /** Whether the id is a special token: parsed as one and left out of text. */
  isSpecial(id: number): boolean

  /** A special token as it is written. */
  nameOf(id: number): string | undefined
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
  const { bos_token, eos_token } = vocabulary
  const json = withAllDigits(vocabulary.json)
  const parsing = new HuggingFaceTokenizer(json, { clean_up_tokenization_spaces: false })
  const variants = new Map<string, HuggingFaceTokenizer>()
  const { bytes, strips_leading_space } = tokenBytes(json)
  const names = new Map(
    json.added_tokens.filter(({ special }) => special).map(({ id, content }) => [id, content]),
  )

  const idOf = (token: string | undefined) =>
    token === undefined ? undefined : parsing.token_to_id(token)
  const eos = idOf(eos_token)
  const none = new Uint8Array(0)
  const prefixes = putsSpaceBefore(json)
  const firstSpecial = specialFinder(json)

  /** The library's tokenizer, special tokens as text or parsed, with or without a space put before. */
  function variant(parse_special: boolean, continues: boolean): HuggingFaceTokenizer {
    if (parse_special && !continues) return parsing
    const key = `${parse_special} ${continues}`
    let made = variants.get(key)
    if (!made) {
      const special = parse_special ? json : withoutSpecialTokens(json)
      made = new HuggingFaceTokenizer(continues ? withoutSpaceBefore(special) : special, {
        clean_up_tokenization_spaces: false,
      })
      variants.set(key, made)
    }
    return made
  }

  const tokenizer: Tokenizer = {
    vocab_size: bytes.length,
    bos_token_id: idOf(bos_token),
    eos_token_ids: [...new Set([...(eos === undefined ? [] : [eos]), ...vocabulary.eos_token_ids])],
    bos_token,
    eos_token,

    encode(text, { special = false, parse_special = true, continues = false } = {}) {
      const encoder = variant(parse_special, false)
      if (!continues || !prefixes) return encoder.encode(text, { add_special_tokens: special }).ids
      // Only what lies before the first special token goes on from the text before.
      const border = parse_special ? firstSpecial(text) : text.length
      const head = variant(parse_special, true).encode(text.slice(0, border), {
        add_special_tokens: special,
      }).ids
      const tail = encoder.encode(text.slice(border), { add_special_tokens: false }).ids
      return head.concat(tail)
    },

    encodeTexts(first, second, most) {
      const whole = parsing.encode(first, {
        ...(second !== undefined && { text_pair: second }),
        add_special_tokens: true,
        return_token_type_ids: true,
      })
      const all = { ids: whole.ids, types: whole.token_type_ids }
      if (all.ids.length <= most) return { ...all, truncated: false }
      const texts = [first, ...(second === undefined ? [] : [second])].map(
        (text) => parsing.encode(text, { add_special_tokens: false }).ids,
      )
      return { ...cutTexts(all, texts, most), truncated: true }
    },

    decode(ids) {
      let first = true
      const parts = ids.map((id) => {
        const part = tokenizer.bytes(id, first)
        if (!names.has(id)) first = false
        return part
      })
      return Buffer.concat(parts).toString('utf8')
    },

    bytes(id, first = false) {
      if (names.has(id)) return none
      const found = bytes[id] ?? none
      return first && strips_leading_space && found[0] === 0x20 ? found.subarray(1) : found
    },

    fewestTokens: fewestTokens(json, bytes),

    isSpecial: (id) => names.has(id),
    nameOf: (id) => names.get(id),
  }
  return tokenizer
}
