// The rows of a training file held against each other, and those of other files against them: what is there twice,
// what contradicts itself, what has leaked. In memory lie the words' hashes, no text.

import { Growing32, Unions } from './growing.ts'
import { NearIndex } from './near-index.ts'
import type { RowText } from './row-text.ts'
import { bagOf, hashText } from './words.ts'

/** Rows behind these are not compared: memory has an end. */
export const MOST_ROWS = 300_000
const MOST_WORDS = 48_000_000

/** Lines that say the same. */
export interface Cluster {
  readonly lines: readonly number[]
  /** How many different outputs they have. */
  readonly outputs: number
}

/** A row of another file that says what a row of the training file says. */
export interface Leak {
  readonly line: number
  readonly training_line: number
}

/** Case and blanks make no other input. */
const inputKey = (input: string) => hashText(input.toLowerCase().trim().replace(/\s+/g, ' '))

export class ComparedRows {
  readonly #near = new NearIndex()
  readonly #groups = new Unions()
  readonly #lines = new Growing32()
  /** The first row of each input, as it stands and with blanks and case left aside. */
  readonly #inputs = new Map<number, number>()
  readonly #keys: number[] = []
  readonly #outputs: number[] = []
  readonly #exact: number[] = []
  /** Rows whose input, but for case and blanks, came before. */
  readonly #again = new Map<number, number[]>()

  get size(): number {
    return this.#lines.length
  }

  get full(): boolean {
    return this.size >= MOST_ROWS || this.#near.bags.words >= MOST_WORDS
  }

  get bags() {
    return this.#near.bags
  }

  lineOf(row: number): number {
    return this.#lines.at(row)
  }

  /** The first of the rows that are near-duplicates of this one, or of one that is: itself, where there are none. */
  clusterOf(row: number): number {
    return this.#groups.first(row)
  }

  /** A hash of what the row says. */
  contentOf(row: number): number {
    return this.#exact[row]!
  }

  add(line: number, { input, asked, output }: RowText): void {
    const row = this.#groups.add()
    this.#lines.push(line)
    const key = inputKey(input)
    const first = this.#inputs.get(key)
    if (first === undefined) this.#inputs.set(key, row)
    else {
      this.#groups.join(first, row)
      const again = this.#again.get(first) ?? []
      this.#again.set(first, again)
      again.push(row)
    }
    this.#keys.push(hashText(input))
    this.#outputs.push(hashText(output))
    this.#exact.push(hashText(`${input}\n\0${output}`))
    this.#near.add(
      bagOf(asked),
      (other) => this.#groups.join(other, row),
      (other) => this.#groups.first(other) === this.#groups.first(row),
    )
  }

  /** Lines that are the same to the letter. */
  exactDuplicates(): Cluster[] {
    return this.#sets((row) => this.#exact[row]!)
  }

  /** Lines that ask nearly the same, each cluster with at least one pair that is not the same to the letter. */
  nearDuplicates(): Cluster[] {
    return this.#sets(
      (row) => this.#groups.first(row),
      (rows) => rows.some((row) => this.#exact[row] !== this.#exact[rows[0]!]),
    )
  }

  /** Lines that ask the same, but for case and blanks, and are answered differently. */
  contradictions(): Cluster[] {
    return [...this.#again]
      .map(([first, again]) => this.#cluster([first, ...again]))
      .filter(({ outputs }) => outputs > 1)
  }

  /** A training row whose input is this to the letter; or one that is nearly it. */
  find({ input, asked }: RowText): { row: number; exact: boolean } | undefined {
    const same = this.#inputs.get(inputKey(input))
    if (same !== undefined) {
      const key = hashText(input)
      const rows = [same, ...(this.#again.get(same) ?? [])]
      const exact = rows.find((row) => this.#keys[row] === key)
      return { row: exact ?? same, exact: exact !== undefined }
    }
    const row = this.#near.find(bagOf(asked))
    return row === undefined ? undefined : { row, exact: false }
  }

  #cluster(rows: readonly number[]): Cluster {
    return {
      lines: rows.map((row) => this.#lines.at(row)),
      outputs: new Set(rows.map((row) => this.#outputs[row])).size,
    }
  }

  #sets(
    keyOf: (row: number) => number,
    wanted: (rows: readonly number[]) => boolean = () => true,
  ): Cluster[] {
    const sets = new Map<number, number | number[]>()
    for (let row = 0; row < this.size; row++) {
      const key = keyOf(row)
      const set = sets.get(key)
      if (set === undefined) sets.set(key, row)
      else if (typeof set === 'number') sets.set(key, [set, row])
      else set.push(row)
    }
    return [...sets.values()]
      .filter((set): set is number[] => typeof set !== 'number' && wanted(set))
      .map((rows) => this.#cluster(rows))
  }
}
