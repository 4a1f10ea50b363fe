// Keys and values of the sequences that are decoded together: slots side by side in one buffer a layer.
// Knows memory only; no session, no tokens.

import { float32, type HostTensor } from '../tensor.ts'

export interface KvCacheShape {
  readonly layers: number
  /** Key heads G and their size K. */
  readonly heads: number
  readonly headDim: number
}

/** Slots grow by so many tokens, or by a quarter: attention costs time by what is allocated. */
const STEP = 64

/** Keys and values of some tokens in a row, of each layer: keys [G, K, T], values [G, T, K], end to end. */
export interface KvPiece {
  readonly tokens: number
  readonly keys: Float32Array
  readonly values: Float32Array
}

/** Keys and values of a layer. */
export interface KvView {
  readonly key: HostTensor
  readonly value: HostTensor
}

/** A cache of `slots` × `capacity` tokens that grows as it must. Slots in use are 0 … count−1. */
export class KvCache {
  readonly #shape: KvCacheShape
  /** Keys [slots, G, K, C], so that a query meets them row by row; values [slots, G, C, K]. */
  #keys: Float32Array[] = []
  #values: Float32Array[] = []
  #slots = 0
  #capacity = 0
  readonly #lengths: number[] = []
  readonly #views = new Map<string, readonly KvView[]>()

  constructor(shape: KvCacheShape) {
    this.#shape = shape
  }

  /** Slots in use. */
  get count(): number {
    return this.#lengths.length
  }

  /** Tokens that each slot has room for. */
  get capacity(): number {
    return this.#capacity
  }

  /** What is allocated. */
  get bytes(): number {
    return 8 * this.#shape.layers * this.#slots * this.#slotSize
  }

  /** Tokens kept in a slot. */
  length(slot: number): number {
    return this.#lengths[slot]!
  }

  /** Opens a slot with room for `tokens` and returns its number. */
  open(tokens: number): number {
    this.#grow(this.count + 1, tokens)
    return this.#lengths.push(0) - 1
  }

  /** Makes room for `tokens` in every slot. */
  reserve(tokens: number): void {
    this.#grow(this.count, tokens)
  }

  /** Forgets what a slot keeps beyond `tokens`. */
  truncate(slot: number, tokens: number): void {
    if (tokens > this.length(slot))
      throw new Error(`a slot of ${this.length(slot)} tokens cannot be cut to ${tokens}`)
    this.#lengths[slot] = tokens
  }

  /** Appends new tokens to slots from … from+B−1: keys and values of a layer are [B, S, G·K]. */
  append(
    from: number,
    [B, S]: readonly [number, number],
    fresh: readonly { key: Float32Array; value: Float32Array }[],
  ): void {
    const { heads: G, headDim: K } = this.#shape
    const C = this.#capacity
    const size = this.#slotSize
    for (const [layer, { key, value }] of fresh.entries()) {
      const keys = this.#keys[layer]!
      const values = this.#values[layer]!
      for (let b = 0; b < B; b++) {
        const slot = (from + b) * size
        const length = this.#lengths[from + b]!
        for (let s = 0; s < S; s++)
          for (let g = 0; g < G; g++) {
            const source = ((b * S + s) * G + g) * K
            const place = length + s
            let to = slot + g * K * C + place
            for (let k = 0; k < K; k++, to += C) keys[to] = key[source + k]!
            to = slot + (g * C + place) * K
            for (let k = 0; k < K; k++) values[to + k] = value[source + k]!
          }
      }
    }
    for (let b = 0; b < B; b++) this.#lengths[from + b]! += S
  }

  /** Appends the first `tokens` of a slot of another cache to one of this; it may be this cache. */
  copy(source: KvCache, from: number, to: number, tokens = source.length(from)): void {
    this.put(to, source.piece(from, 0, tokens))
  }

  /** Tokens from … from+count−1 of a slot, as memory of their own. */
  piece(slot: number, from: number, tokens: number): KvPiece {
    const { layers, heads: G, headDim: K } = this.#shape
    const C = this.#capacity
    const size = this.#slotSize
    const keys = new Float32Array(layers * G * K * tokens)
    const values = new Float32Array(layers * G * K * tokens)
    for (let layer = 0; layer < layers; layer++) {
      const start = slot * size
      for (let row = 0; row < G * K; row++) {
        const at = start + row * C + from
        keys.set(this.#keys[layer]!.subarray(at, at + tokens), (layer * G * K + row) * tokens)
      }
      for (let g = 0; g < G; g++) {
        const at = start + (g * C + from) * K
        values.set(this.#values[layer]!.subarray(at, at + tokens * K), (layer * G + g) * tokens * K)
      }
    }
    return { tokens, keys, values }
  }

  /** Appends a piece to a slot. */
  put(slot: number, { tokens, keys, values }: KvPiece): void {
    const { layers, heads: G, headDim: K } = this.#shape
    const length = this.#lengths[slot]!
    this.reserve(length + tokens)
    const C = this.#capacity
    const size = this.#slotSize
    for (let layer = 0; layer < layers; layer++) {
      const start = slot * size
      for (let row = 0; row < G * K; row++) {
        const at = (layer * G * K + row) * tokens
        this.#keys[layer]!.set(keys.subarray(at, at + tokens), start + row * C + length)
      }
      for (let g = 0; g < G; g++) {
        const at = (layer * G + g) * tokens * K
        this.#values[layer]!.set(values.subarray(at, at + tokens * K), start + (g * C + length) * K)
      }
    }
    this.#lengths[slot] = length + tokens
  }

  /** Closes a slot; the last one moves into its place. Returns the number that moved, if one did. */
  close(slot: number): number | undefined {
    const last = this.count - 1
    const kept = this.#lengths.pop()!
    if (last === 0) this.#release()
    if (slot === last) return undefined
    this.#lengths[slot] = kept
    const size = this.#slotSize
    for (const buffer of [...this.#keys, ...this.#values])
      buffer.copyWithin(slot * size, last * size, (last + 1) * size)
    return last
  }

  /**
   * Of each layer the keys [B, G, 1, K, C] and values [B, G, 1, C, K] in B slots, over the cache's memory; the same objects
   * as long as they lie there. `apart`: each key head as a row of its own, [B·G, 1, …].
   */
  views(from: number, B: number, apart: boolean): readonly KvView[] {
    const name = `${from} ${B} ${apart}`
    const known = this.#views.get(name)
    if (known) return known
    const { heads: G, headDim: K, layers } = this.#shape
    const C = this.#capacity
    const size = this.#slotSize
    const rows = apart ? [B * G] : [B, G]
    const cut = (buffer: Float32Array) => buffer.subarray(from * size, (from + B) * size)
    const views = Array.from({ length: layers }, (_, layer) => ({
      key: float32([...rows, 1, K, C], cut(this.#keys[layer]!)),
      value: float32([...rows, 1, C, K], cut(this.#values[layer]!)),
    }))
    this.#views.set(name, views)
    return views
  }

  get #slotSize(): number {
    return this.#shape.heads * this.#capacity * this.#shape.headDim
  }

  /** The longest answer should not cost memory for ever. */
  #release(): void {
    this.#views.clear()
    this.#keys = []
    this.#values = []
    this.#slots = 0
    this.#capacity = 0
  }

  #grow(slots: number, tokens: number): void {
    if (slots <= this.#slots && tokens <= this.#capacity) return
    this.#views.clear()
    const { layers, heads: G, headDim: K } = this.#shape
    const before = this.#capacity
    const wide = slots <= this.#slots ? this.#slots : powerAtLeast(slots)
    const long =
      tokens <= before ? before : Math.ceil(Math.max(tokens, before * 1.25) / STEP) * STEP
    /** Rows of `old` tokens each become rows of `fresh`; unit: values a token has in one row. */
    const move = (old: Float32Array | undefined, rows: number, unit: number): Float32Array => {
      const fresh = new Float32Array(wide * rows * long * unit)
      if (!old) return fresh
      for (let slot = 0; slot < this.count; slot++)
        for (let row = slot * rows; row < (slot + 1) * rows; row++) {
          const from = row * before * unit
          fresh.set(old.subarray(from, from + this.#lengths[slot]! * unit), row * long * unit)
        }
      return fresh
    }
    for (let layer = 0; layer < layers; layer++) {
      this.#keys[layer] = move(this.#keys[layer], G * K, 1)
      this.#values[layer] = move(this.#values[layer], G, K)
    }
    this.#slots = wide
    this.#capacity = long
  }
}

function powerAtLeast(n: number): number {
  let power = 1
  while (power < n) power *= 2
  return power
}
