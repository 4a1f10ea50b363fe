// What a row format supplies. One file a format, one line in rows.ts.

import type { ChatCoder } from '../tokenizer/assistant-mask.ts'
import type { RowFormat } from './example.ts'
import type { RowReport } from './report-row.ts'

/** A row as tokens, before it is cut. `skipped` counts what should be learned and cannot be. */
export interface EncodedRow {
  readonly tokens: readonly number[]
  readonly weights: readonly number[]
  readonly skipped: number
}

export interface Format {
  readonly name: RowFormat
  /** The method of training that takes such rows. */
  readonly method: string
  /** What such rows hold, in a few words; absent where the words that clients know leave it out. */
  readonly shape?: string
  /** The keys of which any one shows that a row means to be of this format. */
  readonly marks: readonly string[]
  /** Adds every mistake to the report; a row without any can be encoded. */
  check(row: Readonly<Record<string, unknown>>, report: RowReport): void
  /** Only of text that is to be continued; a method whose rows are something else encodes them itself. */
  encode?(row: Readonly<Record<string, unknown>>, coder: ChatCoder): EncodedRow
}
