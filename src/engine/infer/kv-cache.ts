// Keys and values of the sequences that are decoded together: slots side by side in one buffer a layer.
// Knows memory only; no session, no tokens.

import { float32, type HostTensor } from '../tensor.ts'

export interface KvCacheShape {
  readonly layers: number
  /** Key heads G and their size K. */
  readonly heads: number
  readonly headDim: number
}

/** Slots are allocated in powers of two from here: attention costs time by what is allocated. */
const SMALLEST = 128

/** A cache of `slots` × `capacity` tokens that grows as it must. Slots in use are 0 … count−1. */
export class KvCache {
  readonly #shape: KvCacheShape
  #keys: Float32Array[] = []
  #values: Float32Array[] = []
  #slots = 0
  #capacity = 0
  readonly #lengths: number[] = []

  constructor(shape: KvCacheShape) {
    this.#shape = shape
  }

  /** Slots in use. */
  get count(): number {
    return this.#lengths.length
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

  /** Tells that a slot now keeps `tokens`. */
  setLength(slot: number, tokens: number): void {
    this.#lengths[slot] = tokens
  }

  /** Makes the first `tokens` of one slot those of another, which then keeps just these. */
  copy(from: number, to: number, tokens: number): void {
    const { heads, headDim } = this.#shape
    const [size, head] = [this.#slotSize, this.#capacity * headDim]
    for (const buffer of [...this.#keys, ...this.#values])
      for (let h = 0; h < heads; h++) {
        const start = from * size + h * head
        buffer.copyWithin(to * size + h * head, start, start + tokens * headDim)
      }
    this.#lengths[to] = tokens
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

  /** The keys and values of a layer in slots from … from+count−1, as tensors [count, G, C, K] over the cache's memory. */
  view(layer: number, from: number, count: number): { key: HostTensor; value: HostTensor } {
    const { heads, headDim } = this.#shape
    const size = this.#slotSize
    const dims = [count, heads, this.#capacity, headDim]
    const cut = (buffer: Float32Array) =>
      float32(dims, buffer.subarray(from * size, (from + count) * size))
    return { key: cut(this.#keys[layer]!), value: cut(this.#values[layer]!) }
  }

  get #slotSize(): number {
    return this.#shape.heads * this.#capacity * this.#shape.headDim
  }

  /** The longest answer should not cost memory for ever. */
  #release(): void {
    this.#keys = []
    this.#values = []
    this.#slots = 0
    this.#capacity = 0
  }

  #grow(slots: number, tokens: number): void {
    if (slots <= this.#slots && tokens <= this.#capacity) return
    const { layers, heads, headDim } = this.#shape
    const before = this.#capacity
    const wide = powerAtLeast(slots, Math.max(1, this.#slots))
    const long = powerAtLeast(tokens, Math.max(SMALLEST, before))
    const move = (old: Float32Array | undefined): Float32Array => {
      const fresh = new Float32Array(wide * heads * long * headDim)
      if (!old) return fresh
      for (let slot = 0; slot < this.count; slot++)
        for (let head = 0; head < heads; head++) {
          const from = (slot * heads + head) * before * headDim
          const kept = old.subarray(from, from + this.#lengths[slot]! * headDim)
          fresh.set(kept, (slot * heads + head) * long * headDim)
        }
      return fresh
    }
    for (let layer = 0; layer < layers; layer++) {
      this.#keys[layer] = move(this.#keys[layer])
      this.#values[layer] = move(this.#values[layer])
    }
    this.#slots = wide
    this.#capacity = long
  }
}

function powerAtLeast(n: number, start: number): number {
  let power = start
  while (power < n) power *= 2
  return power
}
