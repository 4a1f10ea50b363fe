// How prompts are read: what the prefix cache knows is taken from it, a long rest is read in pieces, and short ones together.

import type { KvCache } from './kv-cache.ts'
import { PREFIX_BLOCK, type PrefixCache } from './prefix-cache.ts'
import type { ResidentTarget } from './residents.ts'
import { isScored, type Running } from './running.ts'

/** Longer prompts are read in pieces, so that no turn on the device gets long; shorter ones while others decode. */
const PIECE_TOKENS = 128
const PIECE_TOKENS_ALONE = 256

/** Shorter pieces where the logits of every place are wanted: 128 rows of 49,152 are 25 MB. */
const SCORED_TOKENS = 128

/** Prompts that are looked for in the prefix cache when a step is put together, at most. */
const LOOKED_FOR = 16

type Reading = NonNullable<Running['reading']>

export class Reader {
  readonly #prefixes: PrefixCache

  constructor(prefixes: PrefixCache) {
    this.#prefixes = prefixes
  }

  /** Where a prompt's reading stands: at its beginning, behind what the prefix cache knows of it. */
  start(r: Running): Reading {
    if (r.reading) return r.reading
    const cache = r.target.batch.decoder.newCache()
    cache.open(r.sequence.prompt.length + 1)
    this.#take(r, cache, 0)
    return { cache, read: cache.length(0) }
  }

  /** Reads one piece: logits after it, or after each of its tokens where the prompt is scored. */
  async read({ target, sequence, shared, invariant }: Running, at: Reading, alone: boolean) {
    const everywhere = isScored(shared)
    const most = everywhere ? SCORED_TOKENS : alone || invariant ? PIECE_TOKENS_ALONE : PIECE_TOKENS
    const piece = sequence.prompt.slice(at.read, at.read + most)
    const { batch, adapter } = target
    const logits = await batch.decoder.read(at.cache, 0, piece, { adapter, everywhere })
    return { count: piece.length, logits }
  }

  /** Whether a prompt may be read together with others; to be asked while one step is put together. */
  fits(): (together: readonly Running[], next: Running) => boolean {
    let looked = 0
    const unread = (r: Running): number => {
      const { prompt } = r.sequence
      const { length } = prompt
      if (length <= PREFIX_BLOCK || looked++ >= LOOKED_FOR) return length
      return length - this.#prefixes.known(keyOf(r.target, false), prompt, length - 1)
    }
    const known = new Map<Running, number>()
    return (together, next) => {
      const all = [...together, next]
      if (all.some((r) => isScored(r.shared) || r.invariant || r.reading)) return false
      if (together.some(({ shared }) => shared === next.shared)) return false
      const lengths = all.map((r) => {
        const length = known.get(r) ?? unread(r)
        known.set(r, length)
        return length
      })
      return Math.max(...lengths) * all.length <= PIECE_TOKENS
    }
  }

  /** Reads whole prompts side by side, each into a slot of its own: the logits after each of them. */
  async together(sequences: readonly Running[]) {
    const { decoder } = sequences[0]!.target.batch
    const cache = decoder.newCache()
    const rests = sequences.map((r, slot) => {
      const { prompt } = r.sequence
      cache.open(prompt.length + 1)
      this.#take(r, cache, slot)
      return prompt.slice(cache.length(slot))
    })
    const adapters = sequences.map(({ target }) => target.adapter)
    return { cache, logits: await decoder.readTogether(cache, rests, adapters) }
  }

  /** Keeps what a slot has of these tokens for prompts that begin with them. */
  keep(r: Running, cache: KvCache, slot: number, tokens: readonly number[]): void {
    const kept = r.invariant ? tokens.slice(0, wholePieces(tokens.length)) : tokens
    const key = keyOf(r.target, r.invariant)
    this.#prefixes.keep(key, kept, (from, count) => cache.piece(slot, from, count))
  }

  #take(r: Running, cache: KvCache, slot: number): void {
    for (const piece of this.#known(r)) cache.put(slot, piece)
    r.shared.cached = cache.length(slot)
  }

  /** A prompt whose probabilities are told has to be computed wherever it is. */
  #known({ target, sequence, shared, invariant }: Running) {
    if (isScored(shared)) return []
    const { prompt } = sequence
    const most = invariant ? wholePieces(prompt.length - 1) : prompt.length - 1
    const found = this.#prefixes.find(keyOf(target, invariant), prompt, most)
    return invariant
      ? found.slice(0, wholePieces(found.length * PREFIX_BLOCK) / PREFIX_BLOCK)
      : found
  }
}

/** Keys and values of pieces of one length are of no use to those that read in others. */
const keyOf = ({ key }: ResidentTarget, invariant: boolean): string =>
  invariant ? `${key}\ninvariant` : key

/** Only what was read in pieces of full length is what it would be the next time. */
const wholePieces = (tokens: number): number => tokens - (tokens % PIECE_TOKENS_ALONE)
