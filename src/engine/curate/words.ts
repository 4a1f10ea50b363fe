// A text as a bag of hashed words: what rows are compared by. Case, punctuation and order do not count.

import { Growing32 } from './growing.ts'

/** A letter of a script that puts no space between words stands for itself, and so does a symbol such as + or €. */
const WORD =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{S}]|[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}\p{N}]+)*/gu

/** The words of a text in lower case, in its order. */
export const wordsOf = (text: string): string[] =>
  text.normalize('NFKC').toLowerCase().match(WORD) ?? []

/** FNV-1a over UTF-16 units, its bits mixed once more. */
export function hashWord(word: string, seed = 0x811c9dc5): number {
  let h = seed
  for (let i = 0; i < word.length; i++) h = Math.imul(h ^ word.charCodeAt(i), 0x01000193)
  return mix(h)
}

/** Every bit of the result depends on every bit of the number (the finalizer of MurmurHash3). */
export function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** The hashed words of a text, sorted, each as often as it occurs. */
export function bagOf(text: string): Uint32Array {
  const words = wordsOf(text)
  const bag = new Uint32Array(words.length)
  for (let i = 0; i < words.length; i++) bag[i] = hashWord(words[i]!)
  return bag.sort()
}

/** How many words two bags have in common, repetitions counted. */
export function sharedWords(a: Uint32Array, b: Uint32Array): number {
  let shared = 0
  for (let i = 0, k = 0; i < a.length && k < b.length; ) {
    if (a[i]! === b[k]!) {
      shared++
      i++
      k++
    } else if (a[i]! < b[k]!) i++
    else k++
  }
  return shared
}

/**
 * What near-duplicates are: of the words of the longer text, repetitions counted, the other has seven in eight. A text
 * of less than eight words has no near-duplicates but those of the very same words.
 */
export function isNear(a: Uint32Array, b: Uint32Array): boolean {
  const [most, least] = a.length > b.length ? [a.length, b.length] : [b.length, a.length]
  return least > 0 && 8 * least >= 7 * most && 8 * sharedWords(a, b) >= 7 * most
}

/** 53 bits of a text, as a number that a Map takes for a key. */
export function hashText(text: string): number {
  let h1 = 0xdeadbeef
  let h2 = 0x41c6ce57
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    h1 = Math.imul(h1 ^ unit, 2654435761)
    h2 = Math.imul(h2 ^ unit, 1597334677)
  }
  h1 = mix(h1 ^ (h2 >>> 13))
  h2 = mix(h2 ^ (h1 >>> 11))
  return (h2 & 0x1fffff) * 2 ** 32 + h1
}

/** Bags one behind the other in one piece of memory. */
export class Bags {
  readonly #words = new Growing32()
  readonly #ends = new Growing32()

  get size(): number {
    return this.#ends.length
  }

  /** Words in all. */
  get words(): number {
    return this.#words.length
  }

  push(bag: Uint32Array): void {
    this.#words.pushAll(bag)
    this.#ends.push(this.#words.length)
  }

  at(row: number): Uint32Array {
    return this.#words.slice(row === 0 ? 0 : this.#ends.at(row - 1), this.#ends.at(row))
  }
}
