// Finds the near-duplicates of a row among all before it, in a time that does not grow with them. What a
// near-duplicate is, words.ts says; every pair that is found here is held against it.
//
// Texts of less than 16 words can differ in one word only. They are found by the sums of their words' hashes, with each
// word left out in turn: none is missed. Longer ones are found by MinHash (Broder, 1997) in 24 bands of 6: a pair that
// is just near enough, with a Jaccard similarity of 7/9, is missed once in 400, one that differs in a single word never.

import { Growing32, Table64 } from './growing.ts'
import { Bags, isNear, mix } from './words.ts'

const BANDS = 24
const ROWS = 6
/** Below so many words the sums are enough. */
const SUMMED = 16
/** A longer text's near-duplicates have at least so many words. */
const BANDED = Math.ceil((SUMMED * 7) / 8)
/** So many rows of a bucket are compared, so that a file of one template takes no longer than another. */
const COMPARED = 32
const END = 0xffffffff

export class NearIndex {
  readonly #bags = new Bags()
  readonly #sums = new Table64()
  readonly #bands = new Table64()
  // Buckets of rows as chains: the row, the link before, how many there are.
  readonly #rows = new Growing32()
  readonly #links = new Growing32()
  readonly #counts = new Growing32()

  /** Bags of the rows that were added. */
  get bags(): Bags {
    return this.#bags
  }

  /**
   * Adds a row, whose number is how many came before. `near` is told of near-duplicates before it, unless `skip` says
   * that nothing need be known of one: of all that are near to each other at least so many that they hang together.
   */
  add(bag: Uint32Array, near: (row: number) => void, skip?: (row: number) => boolean): void {
    const row = this.#bags.size
    this.#visit(bag, near, skip, row)
    this.#bags.push(bag)
  }

  /** A near-duplicate of the text among the rows that were added. */
  find(bag: Uint32Array): number | undefined {
    let found: number | undefined
    this.#visit(
      bag,
      (row) => {
        found ??= row
      },
      () => found !== undefined,
    )
    return found
  }

  #visit(
    bag: Uint32Array,
    near: (row: number) => void,
    skip: (row: number) => boolean = () => false,
    added?: number,
  ): void {
    if (bag.length === 0) return
    const compare = (row: number) => {
      if (row !== added && !skip(row) && isNear(this.#bags.at(row), bag)) near(row)
    }
    if (bag.length < SUMMED)
      for (const [low, high] of sumsOf(bag)) {
        const other = this.#sums.get(low, high)
        if (other !== undefined) compare(other)
        else if (added !== undefined) this.#sums.set(low, high, added)
      }
    if (bag.length >= BANDED)
      for (const [low, high] of bandsOf(bag)) {
        const newest = this.#bands.get(low, high)
        for (let at = newest ?? END; at !== END; at = this.#links.at(at)) compare(this.#rows.at(at))
        const count = newest === undefined ? 0 : this.#counts.at(newest)
        if (added === undefined || count >= COMPARED) continue
        this.#bands.set(low, high, this.#rows.length)
        this.#rows.push(added)
        this.#links.push(newest ?? END)
        this.#counts.push(count + 1)
      }
  }
}

/** The sum of the words' hashes, and from eight words on the sums without one of them. */
function* sumsOf(bag: Uint32Array): Generator<readonly [number, number]> {
  let low = 0
  let high = 0
  for (const word of bag) {
    low = (low + mix(word)) >>> 0
    high = (high + mix(word ^ 0x5bd1e995)) >>> 0
  }
  yield [low, high]
  if (bag.length < 8) return
  for (let i = 0; i < bag.length; i++) {
    const word = bag[i]!
    if (i > 0 && word === bag[i - 1]) continue
    yield [(low - mix(word)) >>> 0, (high - mix(word ^ 0x5bd1e995)) >>> 0]
  }
}

const SEEDS = Uint32Array.from({ length: BANDS * ROWS }, (_, i) => mix(i + 1))
const FACTORS = SEEDS.map((seed) => mix(seed) | 1)
const least = new Uint32Array(BANDS * ROWS)

/** A key for each band: the least hashes of the words, the repetitions of a word being words of their own. */
function* bandsOf(bag: Uint32Array): Generator<readonly [number, number]> {
  least.fill(0xffffffff)
  let repeated = 0
  for (let i = 0; i < bag.length; i++) {
    repeated = i > 0 && bag[i] === bag[i - 1] ? repeated + 1 : 0
    const word = repeated === 0 ? bag[i]! : mix(bag[i]! + repeated)
    for (let k = 0; k < least.length; k++) {
      const hash = Math.imul(word ^ SEEDS[k]!, FACTORS[k]!) >>> 0
      if (hash < least[k]!) least[k] = hash
    }
  }
  // The generator is left between two keys: the hashes are copied out first.
  const keys = new Uint32Array(2 * BANDS)
  for (let band = 0; band < BANDS; band++) {
    let low = mix(band + 1)
    let high = mix(band + 0x1000)
    for (let k = band * ROWS; k < (band + 1) * ROWS; k++) {
      low = mix(low ^ least[k]!)
      high = mix(Math.imul(high, 31) + least[k]!)
    }
    keys[2 * band] = low
    keys[2 * band + 1] = high
  }
  for (let band = 0; band < BANDS; band++) yield [keys[2 * band]!, keys[2 * band + 1]!]
}
