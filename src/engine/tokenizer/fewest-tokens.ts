// How much of a text must come back in its tokens: enough to know early that there will be too many.

import { byteLevelAlphabet } from './token-bytes.ts'
import type { Component, TokenizerJson } from './vocabulary.ts'

/**
 * A bound below the number of a text's tokens: whatever byte is looked at, no token holds more of them than the one
 * that holds most. `bytes` are those of each token. 0 where parts of the tokenizer may drop or shorten text in ways
 * that are not looked into.
 */
export function fewestTokens(
  json: TokenizerJson,
  bytes: readonly Uint8Array[],
): (text: string) => number {
  const normalizers = flattened(json.normalizer)
  const pretokenizers = flattened(json.pre_tokenizer)
  const { vocab, byte_fallback } = json.model
  const byteLevel = pretokenizers.some(({ type }) => type === 'ByteLevel')
  const known =
    normalizers.every(keepsLength) &&
    pretokenizers.every(keepsText) &&
    json.added_tokens.every(({ lstrip, rstrip }) => !lstrip && !rstrip) &&
    (byteLevel || byte_fallback === true)
  if (!known) return () => 0
  const composes = normalizers.some(({ type }) => type === 'NFC')

  const longest = bytes.reduce((most, { length }) => Math.max(most, length), 1)
  const most = mostOfEachByte(bytes)
  // Bytes that the vocabulary lacks may be dropped.
  const names = byteLevel ? byteLevelAlphabet() : BYTE_TOKENS
  const kept = [...names.keys()].filter((byte) => vocab[names[byte]!] !== undefined)
  return (text) => {
    const count = new Uint32Array(256)
    for (const byte of Buffer.from(composes ? text.normalize('NFC') : text)) count[byte]!++
    const all = kept.reduce((sum, byte) => sum + count[byte]!, 0)
    return kept.reduce(
      (least, byte) => Math.max(least, Math.ceil(count[byte]! / Math.max(1, most[byte]!))),
      Math.ceil(all / longest),
    )
  }
}

/** How often one token holds each byte at most. */
function mostOfEachByte(bytes: readonly Uint8Array[]): Uint32Array {
  const most = new Uint32Array(256)
  for (const token of bytes)
    for (const byte of token) {
      const times = token.reduce((n, other) => n + (other === byte ? 1 : 0), 0)
      if (times > most[byte]!) most[byte] = times
    }
  return most
}

/** Bytes as SentencePiece writes them. */
const BYTE_TOKENS = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
)

const flattened = (part: Component | null): Component[] =>
  part ? [part, ...(part.normalizers ?? part.pretokenizers ?? []).flatMap(flattened)] : []

/** `▁` for a space is a space again among a token's bytes. */
const keepsLength = ({ type, pattern, content }: Component) =>
  ['Sequence', 'Prepend', 'NFC'].includes(type) ||
  (type === 'Replace' && (pattern as { String?: unknown })?.String === ' ' && content === '▁')

const keepsText = ({ type, behavior }: Component) =>
  ['Sequence', 'ByteLevel', 'Metaspace', 'Digits'].includes(type) ||
  (type === 'Split' && behavior === 'Isolated')
