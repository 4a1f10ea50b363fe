// What a preflight shows of a file's tokens: how long its rows are, what of the longest is cut, and three of them token
// by token.

import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import { GrowingList } from './compact.ts'
import type { EncodedExample } from './encode.ts'
import type { Example } from './example.ts'

export interface Percentiles {
  min: number
  p50: number
  p90: number
  p95: number
  p99: number
  max: number
}

/** A row that is longer than `max_sequence_length`. */
export interface OverLength {
  line: number
  /** Before it is cut; null where the method does not count so far. */
  tokens: number | null
  /** Of them are beyond the length, and of those would have been learned. */
  cut: number | null
  cut_trained: number | null
}

export interface ShownRow {
  line: number
  tokens: { id: number; text: string; trained: boolean }[]
  /** Tokens behind those that are shown. */
  more: number
}

export interface RowDetails {
  row_tokens: Percentiles
  row_trained_tokens: Percentiles
  over_length: OverLength[]
  shown: ShownRow[]
}

const LISTED = 50
const SHOWN_TOKENS = 256

export class DetailsOfRows {
  readonly #lengths = new GrowingList()
  readonly #trained = new GrowingList()
  readonly #over: OverLength[] = []
  #first: Example | undefined
  #shortest: Example | undefined
  #longest: Example | undefined

  add(example: EncodedExample, trained: number): void {
    const { line, tokens, weights, truncated, cut } = example
    this.#lengths.push(tokens.length)
    this.#trained.push(trained)
    if (truncated && this.#over.length < LISTED)
      this.#over.push({
        line,
        tokens: cut ? tokens.length + cut.tokens : null,
        cut: cut?.tokens ?? null,
        cut_trained: cut?.trained ?? null,
      })
    const kept = { line, tokens, weights }
    if (!this.#first) this.#first = kept
    else {
      if (tokens.length < (this.#shortest?.tokens.length ?? Number.POSITIVE_INFINITY))
        this.#shortest = kept
      if (tokens.length >= (this.#longest?.tokens.length ?? 0) && line !== this.#shortest?.line)
        this.#longest = kept
    }
  }

  details(tokenizer: Tokenizer): RowDetails {
    const rows = [this.#first, this.#shortest, this.#longest].filter((row) => row !== undefined)
    return {
      row_tokens: percentiles(this.#lengths.values()),
      row_trained_tokens: percentiles(this.#trained.values()),
      over_length: this.#over,
      shown: rows.map((row) => shownRow(row, tokenizer)),
    }
  }
}

function percentiles(values: Int32Array): Percentiles {
  const sorted = values.slice().sort()
  const at = (q: number) =>
    sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? 0
  return {
    min: sorted[0] ?? 0,
    p50: at(0.5),
    p90: at(0.9),
    p95: at(0.95),
    p99: at(0.99),
    max: sorted.at(-1) ?? 0,
  }
}

const shownRow = ({ line, tokens, weights }: Example, tokenizer: Tokenizer): ShownRow => ({
  line,
  tokens: [...tokens.subarray(0, SHOWN_TOKENS)].map((id, i) => ({
    id,
    // A character may lie across tokens: its pieces are shown as U+FFFD; NUL no database keeps as text.
    text:
      tokenizer.nameOf(id) ??
      Buffer.from(tokenizer.bytes(id)).toString('utf8').replaceAll('\0', '\ufffd'),
    trained: weights[i]! > 0,
  })),
  more: Math.max(0, tokens.length - SHOWN_TOKENS),
})
