// Lists of numbers that grow, in the bytes of their numbers: what must be remembered of every row of a file.

/** Unsigned 32-bit numbers. */
export class Growing32 {
  #values = new Uint32Array(1024)
  length = 0

  push(value: number): void {
    this.#reserve(1)
    this.#values[this.length++] = value
  }

  pushAll(values: Uint32Array): void {
    this.#reserve(values.length)
    this.#values.set(values, this.length)
    this.length += values.length
  }

  at(index: number): number {
    return this.#values[index]!
  }

  set(index: number, value: number): void {
    this.#values[index] = value
  }

  /** A view, good until the list grows. */
  slice(from: number, to: number): Uint32Array {
    return this.#values.subarray(from, to)
  }

  #reserve(more: number): void {
    if (this.length + more <= this.#values.length) return
    const grown = new Uint32Array(Math.max(this.#values.length * 2, this.length + more))
    grown.set(this.#values)
    this.#values = grown
  }
}

/** Keys of 64 bits, each with a number of 32: an open table in 12 bytes a place. */
export class Table64 {
  #keys = new Uint32Array(2 * 1024)
  /** One more than the number; 0 marks an empty place. */
  #values = new Uint32Array(1024)
  #size = 0

  /** The number under a key; undefined where there is none. */
  get(low: number, high: number): number | undefined {
    const value = this.#values[this.#find(low, high)]!
    return value === 0 ? undefined : value - 1
  }

  set(low: number, high: number, value: number): void {
    const at = this.#find(low, high)
    if (this.#values[at] === 0 && ++this.#size * 8 > this.#values.length * 5) {
      this.#grow()
      this.#put(this.#find(low, high), low, high, value)
    } else this.#put(at, low, high, value)
  }

  #put(at: number, low: number, high: number, value: number): void {
    this.#keys[2 * at] = low
    this.#keys[2 * at + 1] = high
    this.#values[at] = value + 1
  }

  #find(low: number, high: number): number {
    const mask = this.#values.length - 1
    let at = (low ^ Math.imul(high, 0x9e3779b1)) & mask
    while (
      this.#values[at] !== 0 &&
      (this.#keys[2 * at] !== low || this.#keys[2 * at + 1] !== high)
    )
      at = (at + 1) & mask
    return at
  }

  #grow(): void {
    const [keys, values] = [this.#keys, this.#values]
    this.#keys = new Uint32Array(keys.length * 2)
    this.#values = new Uint32Array(values.length * 2)
    for (let i = 0; i < values.length; i++) {
      if (values[i] === 0) continue
      const [low, high] = [keys[2 * i]!, keys[2 * i + 1]!]
      this.#put(this.#find(low, high), low, high, values[i]! - 1)
    }
  }
}

/** Which things belong together, by pairs that do. */
export class Unions {
  readonly #parents = new Growing32()

  /** A thing that belongs to none yet: its number. */
  add(): number {
    this.#parents.push(this.#parents.length)
    return this.#parents.length - 1
  }

  /** The first of all that belong together with this one. */
  first(item: number): number {
    let at = item
    while (this.#parents.at(at) !== at) {
      this.#parents.set(at, this.#parents.at(this.#parents.at(at)))
      at = this.#parents.at(at)
    }
    return at
  }

  join(a: number, b: number): void {
    const [x, y] = [this.first(a), this.first(b)]
    this.#parents.set(Math.max(x, y), Math.min(x, y))
  }

  get size(): number {
    return this.#parents.length
  }
}
