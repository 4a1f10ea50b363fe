// The bytes each token stands for, read off the decoder that tokenizer.json names.

import type { Component, TokenizerJson } from './vocabulary.ts'

const utf8 = new TextEncoder()

/** Bytes by id, and whether the decoder takes one leading space from a text. */
export function tokenBytes(json: TokenizerJson): {
  bytes: readonly Uint8Array[]
  strips_leading_space: boolean
} {
  const parts = flatten(json.decoder)
  const has = (type: string) => parts.some((part) => part.type === type)
  const toBytes =
    json.model.type === 'WordPiece'
      ? wordPieces
      : has('ByteLevel')
        ? byteLevel()
        : pieces(has('ByteFallback'))

  const bytes: Uint8Array[] = []
  for (const [token, id] of Object.entries(json.model.vocab)) bytes[id] = toBytes(token)
  for (const { id, content } of json.added_tokens) bytes[id] = utf8.encode(content)
  for (let id = 0; id < bytes.length; id++) bytes[id] ??= new Uint8Array(0)
  return {
    bytes,
    strips_leading_space: parts.some(
      (part) =>
        part.type === 'WordPiece' ||
        (part.type === 'Strip' && part.content === ' ' && Number(part.start) > 0) ||
        (part.type === 'Metaspace' && part.prepend_scheme !== 'never'),
    ),
  }
}

const flatten = (part: Component | null): Component[] =>
  part ? [part, ...(part.decoders ?? []).flatMap(flatten)] : []

/** SentencePiece: `▁` is a space, `<0x0A>` a byte. */
const pieces = (byteFallback: boolean) => (token: string) => {
  const byte = byteFallback ? /^<0x([0-9A-F]{2})>$/.exec(token)?.[1] : undefined
  return byte ? Uint8Array.of(Number.parseInt(byte, 16)) : utf8.encode(token.replaceAll('▁', ' '))
}

/** BERT: `##` goes on with a word, all else begins one. */
const wordPieces = (token: string): Uint8Array =>
  utf8.encode(token.startsWith('##') ? token.slice(2) : ` ${token}`)

/** GPT-2: each byte is written as one printable character. */
function byteLevel(): (token: string) => Uint8Array {
  const byteOf = new Map([...byteLevelAlphabet()].map((char, byte) => [char, byte]))
  return (token) => {
    const bytes = Array.from(token, (char) => byteOf.get(char))
    return bytes.includes(undefined) ? utf8.encode(token) : Uint8Array.from(bytes as number[])
  }
}

/** The characters GPT-2 writes for bytes 0 to 255: itself where it is printable, else the next from U+0100 on. */
export function byteLevelAlphabet(): string[] {
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    return String.fromCodePoint(printable ? byte : next++)
  })
}
