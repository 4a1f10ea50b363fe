// A byte-level BPE tokenizer learned from a few texts (arXiv 1508.07909), as the tokenizer.json of a Hugging Face folder.
// Counts every pair anew for each merge: meant for kilobytes of text, not for a corpus.

import { byteLevelAlphabet } from './token-bytes.ts'
import type { TokenizerJson } from './vocabulary.ts'

export interface BpeOptions {
  /** Tokens in all: 256 bytes, the merges, the special tokens. */
  readonly vocab_size: number
  /** Their ids follow the merges, in this order. */
  readonly special_tokens: readonly string[]
}

/** How GPT-2 cuts a text before it joins bytes; the tokenizer does the same (`use_regex`). */
const PIECES = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/** The same texts give the same tokenizer. */
export function trainBpe(
  texts: readonly string[],
  { vocab_size, special_tokens }: BpeOptions,
): TokenizerJson {
  const alphabet = byteLevelAlphabet()
  const utf8 = new TextEncoder()
  const counts = new Map<string, number>()
  for (const text of texts)
    for (const [piece] of text.matchAll(PIECES)) counts.set(piece, (counts.get(piece) ?? 0) + 1)
  const words = [...counts].map(([piece, count]) => ({
    parts: [...utf8.encode(piece)].map((byte) => alphabet[byte]!),
    count,
  }))

  const vocab: Record<string, number> = {}
  for (const [byte, letter] of alphabet.entries()) vocab[letter] = byte
  const merges: [string, string][] = []
  const most = vocab_size - alphabet.length - special_tokens.length
  while (merges.length < most) {
    const best = mostFrequentPair(words)
    if (!best) break
    const [left, right] = best
    merges.push([left, right])
    vocab[left + right] ??= Object.keys(vocab).length
    for (const word of words) word.parts = merged(word.parts, left, right)
  }

  const size = Object.keys(vocab).length
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special_tokens.map((content, i) => ({
      id: size + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: level,
    post_processor: null,
    decoder: level,
    model: { type: 'BPE', vocab, merges },
  }
  return json
}

/** Of several the one met first; a pair that stands only once teaches nothing. */
function mostFrequentPair(words: readonly { parts: readonly string[]; count: number }[]) {
  const pairs = new Map<string, { pair: [string, string]; count: number }>()
  let best: { pair: [string, string]; count: number } | undefined
  for (const { parts, count } of words)
    for (let i = 1; i < parts.length; i++) {
      const pair: [string, string] = [parts[i - 1]!, parts[i]!]
      const key = pair.join(' ')
      const known = pairs.get(key) ?? { pair, count: 0 }
      known.count += count
      pairs.set(key, known)
    }
  for (const candidate of pairs.values()) if (candidate.count > (best?.count ?? 1)) best = candidate
  return best?.pair
}

function merged(parts: readonly string[], left: string, right: string): string[] {
  const joined: string[] = []
  for (let i = 0; i < parts.length; i++)
    if (parts[i] === left && parts[i + 1] === right) {
      joined.push(left + right)
      i++
    } else joined.push(parts[i]!)
  return joined
}
