// Texts → the inputs of an encoder's graph, and where each of them lies. Pure.

import { type HostTensor, int64 } from '../tensor.ts'

/** Rows of tokens of one length. */
export interface RowGroup {
  readonly rows: number
  readonly length: number
}

/**
 * The static shape of an encoder's micro-batch: most rows are as long as most texts need, for attention costs the
 * square of it; `long` ones come after them, end to end, and take the texts that are longer.
 */
export interface TextShape extends RowGroup {
  readonly long?: RowGroup | undefined
}

/** The groups of a shape, in the order of their tokens. */
export const rowGroups = ({ rows, length, long }: TextShape): RowGroup[] => [
  { rows, length },
  ...(long ? [long] : []),
]

/** Tokens of a micro-batch, padding among them. */
export const tokensOf = (shape: TextShape): number =>
  rowGroups(shape).reduce((n, { rows, length }) => n + rows * length, 0)

/** A text that an encoder reads by itself. */
export interface Text {
  readonly tokens: Int32Array
  readonly types: Int32Array
}

export interface TextBatch {
  /** `tokens`, `positions`, `segments` and `types`, each [N]: all rows end to end. */
  readonly feeds: Readonly<Record<string, HostTensor>>
  /** Which texts these are, and where each begins. */
  readonly texts: readonly { readonly index: number; readonly at: number }[]
}

/** Texts that are packed together at most: first fit costs the square of them. */
const PACKED_TOGETHER = 512

/**
 * Packs texts into rows and rows into micro-batches, one at a time as they are asked for. Unused places are tokens of
 * id 0 in a segment of their own. Throws for a text longer than every row.
 */
export function* textBatches(
  texts: readonly Text[],
  shape: TextShape,
): Generator<TextBatch, void, undefined> {
  for (let from = 0; from < texts.length; from += PACKED_TOGETHER) {
    const some = texts.slice(from, from + PACKED_TOGETHER)
    const packed = packTexts(
      some.map(({ tokens }) => tokens.length),
      shape,
    )
    for (const rows of packed) yield batchOf(some, rows, from, tokensOf(shape))
  }
}

/** A row that has texts: where it begins in its micro-batch, and which they are. */
interface PackedRow {
  readonly start: number
  readonly texts: readonly number[]
}

/**
 * First fit, longest first, into rows of two lengths; a further micro-batch is begun when a text fits nowhere.
 * The same lengths give the same rows.
 */
export function packTexts(lengths: readonly number[], shape: TextShape): PackedRow[][] {
  const fresh = () => {
    let start = 0
    return rowGroups(shape).flatMap(({ rows, length }) =>
      Array.from({ length: rows }, () => {
        const row = { start, left: length, texts: [] as number[] }
        start += length
        return row
      }),
    )
  }
  const longest = Math.max(...rowGroups(shape).map(({ length }) => length))
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b)
  const batches: ReturnType<typeof fresh>[] = []
  for (const i of order) {
    const length = lengths[i]!
    if (length > longest) throw new Error(`text ${i} has ${length} tokens, a row has ${longest}`)
    const fits = (rows: ReturnType<typeof fresh>) => rows.find(({ left }) => left >= length)
    let row = batches.reduce<ReturnType<typeof fits>>(
      (found, rows) => found ?? fits(rows),
      undefined,
    )
    if (!row) {
      const rows = fresh()
      batches.push(rows)
      row = fits(rows)!
    }
    row.left -= length
    row.texts.push(i)
  }
  return batches
}

function batchOf(
  texts: readonly Text[],
  rows: readonly PackedRow[],
  from: number,
  N: number,
): TextBatch {
  const tokens = new Int32Array(N)
  const positions = new Int32Array(N)
  const segments = new Int32Array(N)
  const types = new Int32Array(N)
  const places: { index: number; at: number }[] = []
  for (const row of rows) {
    let at = row.start
    for (const [segment, i] of row.texts.entries()) {
      const text = texts[i]!
      const end = at + text.tokens.length
      places.push({ index: from + i, at })
      tokens.set(text.tokens, at)
      types.set(text.types, at)
      segments.fill(segment + 1, at, end)
      for (let k = at; k < end; k++) positions[k] = k - at
      at = end
    }
  }
  const feed = (values: Int32Array) => int64([N], values)
  return {
    feeds: {
      tokens: feed(tokens),
      positions: feed(positions),
      segments: feed(segments),
      types: feed(types),
    },
    texts: places,
  }
}
