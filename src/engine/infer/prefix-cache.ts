// Keys and values of prompts that may come again, by their token ids: blocks in a row, shared by all that begin alike.
// Knows memory and token ids; no session.

import type { KvPiece } from './kv-cache.ts'

/** Tokens of one block; only whole ones are kept. */
export const PREFIX_BLOCK = 32

interface Block {
  readonly key: string
  readonly piece: KvPiece
  readonly bytes: number
}

export interface PrefixUsage {
  /** Prompt tokens that were looked for, and those of them that were found. */
  readonly queries: number
  readonly hits: number
  readonly bytes: number
  /** Blocks that had to go. */
  readonly evictions: number
}

/**
 * A block's name is the id of the one before it and its own tokens, so that equal names are equal pasts. What is read
 * least recently goes first, and of a row its end: what begins a row is of use without the rest, and not the other way
 * round.
 */
export class PrefixCache {
  readonly #limit: number
  /** In the order of use, the longest unused first. */
  readonly #blocks = new Map<string, Block>()
  readonly #ids = new Map<string, number>()
  #lastId = 0
  readonly #usage = { queries: 0, hits: 0, bytes: 0, evictions: 0 }

  constructor(limit: number) {
    this.#limit = limit
  }

  get usage(): PrefixUsage {
    return this.#usage
  }

  /** The longest kept beginning of these tokens under this target, of `most` tokens at most. */
  find(target: string, tokens: readonly number[], most: number): KvPiece[] {
    const found = this.#row(target, tokens, most)
    this.#touch(found)
    this.#usage.queries += most
    this.#usage.hits += found.length * PREFIX_BLOCK
    return found.map(({ piece }) => piece)
  }

  /** How many of these tokens `find` would find; changes nothing. */
  known(target: string, tokens: readonly number[], most: number): number {
    return PREFIX_BLOCK * this.#row(target, tokens, most).length
  }

  /** Keeps the whole blocks of these tokens; `piece(from, count)` copies those that are not there yet. */
  keep(
    target: string,
    tokens: readonly number[],
    piece: (from: number, count: number) => KvPiece,
  ): void {
    const row: Block[] = []
    let before = target
    for (let i = 0; (i + 1) * PREFIX_BLOCK <= tokens.length; i++) {
      const key = nameOf(before, tokens, i)
      const block = this.#blocks.get(key) ?? this.#enter(key, piece(i * PREFIX_BLOCK, PREFIX_BLOCK))
      if (!block) break
      row.push(block)
      before = String(this.#ids.get(key))
    }
    this.#touch(row)
    this.#evict()
  }

  clear(): void {
    this.#blocks.clear()
    this.#ids.clear()
    this.#usage.bytes = 0
  }

  #row(target: string, tokens: readonly number[], most: number): Block[] {
    const found: Block[] = []
    let before = target
    while ((found.length + 1) * PREFIX_BLOCK <= most) {
      const block = this.#blocks.get(nameOf(before, tokens, found.length))
      if (!block) break
      found.push(block)
      before = String(this.#ids.get(block.key))
    }
    return found
  }

  /** A row was read just now, its end first, so that this is what goes first. */
  #touch(row: readonly Block[]): void {
    for (const block of row.toReversed()) {
      this.#blocks.delete(block.key)
      this.#blocks.set(block.key, block)
    }
  }

  #enter(key: string, piece: KvPiece): Block | undefined {
    const bytes = piece.keys.byteLength + piece.values.byteLength + key.length
    if (bytes > this.#limit) return undefined
    this.#ids.set(key, ++this.#lastId)
    this.#usage.bytes += bytes
    return { key, piece, bytes }
  }

  #evict(): void {
    for (const [key, { bytes }] of this.#blocks) {
      if (this.#usage.bytes <= this.#limit) return
      this.#blocks.delete(key)
      this.#ids.delete(key)
      this.#usage.bytes -= bytes
      this.#usage.evictions++
    }
  }
}

const nameOf = (before: string, tokens: readonly number[], block: number): string =>
  `${before}:${tokens.slice(block * PREFIX_BLOCK, (block + 1) * PREFIX_BLOCK).join(',')}`
