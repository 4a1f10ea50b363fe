// Lists and sets of many millions in a few bytes an entry: what must be remembered of every row of a file.

import { createHash } from 'node:crypto'

/** A list of small integers in 4 bytes each, up to twice that while it grows. */
export class GrowingList {
  #values = new Int32Array(1024)
  #length = 0

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const grown = new Int32Array(this.#length * 2)
      grown.set(this.#values)
      this.#values = grown
    }
    this.#values[this.#length++] = value
  }

  values(): Int32Array {
    return this.#values.subarray(0, this.#length)
  }
}

/**
 * Which texts were seen, by 64 bits of their SHA-256 in an open table: 11 to 22 bytes a text. Two different texts
 * among ten million pass for one with a chance of 3 in a million.
 */
export class TextSet {
  // Two halves a place; both 0 is an empty one.
  #table = new Uint32Array(2 * 1024)
  #size = 0

  /** Whether the text is new. */
  add(text: string): boolean {
    const digest = createHash('sha256').update(text).digest()
    const low = digest.readUInt32LE(0)
    // A fingerprint that is all 0 would pass for an empty place.
    const high = digest.readUInt32LE(4) || 1
    const at = find(this.#table, low, high)
    if (this.#table[at + 1] !== 0) return false
    this.#table[at] = low
    this.#table[at + 1] = high
    if (++this.#size * 8 > this.#table.length * 3) this.#grow()
    return true
  }

  #grow(): void {
    const old = this.#table
    const table = new Uint32Array(old.length * 2)
    for (let i = 0; i < old.length; i += 2) {
      const high = old[i + 1]!
      if (high === 0) continue
      const at = find(table, old[i]!, high)
      table[at] = old[i]!
      table[at + 1] = high
    }
    this.#table = table
  }
}

/** Where the fingerprint lies, or the empty place for it. */
function find(table: Uint32Array, low: number, high: number): number {
  const mask = table.length - 1
  let at = (low * 2) & mask
  while (table[at + 1] !== 0 && (table[at] !== low || table[at + 1] !== high)) at = (at + 2) & mask
  return at
}
