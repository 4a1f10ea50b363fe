// Texts → the inputs of an encoder's graph, and where each of them lies. Pure.

import { type HostTensor, int64 } from '../tensor.ts'
import { packExamples } from './pack.ts'

/** The static shape of a micro-batch: B rows of T tokens. */
interface RowsShape {
  readonly rows: number
  readonly length: number
}

/** A text that an encoder reads by itself. */
export interface Text {
  readonly tokens: Int32Array
  readonly types: Int32Array
}

export interface TextBatch {
  /** `tokens`, `positions`, `segments` and `types`, each [B, T]. */
  readonly feeds: Readonly<Record<string, HostTensor>>
  /** Which texts these are, and where in the rows, end to end, each begins. */
  readonly texts: readonly { readonly index: number; readonly at: number }[]
}

/** Texts that are packed together at most: first fit costs the square of them. */
const PACKED_TOGETHER = 512

/**
 * Packs texts into rows and rows into micro-batches, one at a time as they are asked for. Unused places are tokens of
 * id 0 in a segment of their own. Throws for a text longer than a row.
 */
export function* textBatches(
  texts: readonly Text[],
  { rows: B, length: T }: RowsShape,
): Generator<TextBatch, void, undefined> {
  for (let from = 0; from < texts.length; from += PACKED_TOGETHER) {
    const some = texts.slice(from, from + PACKED_TOGETHER)
    const rows = packExamples(
      some.map(({ tokens }) => tokens.length),
      T,
    )
    for (let i = 0; i < rows.length; i += B) {
      const inputs = Array.from({ length: 4 }, () => new Int32Array(B * T))
      const [tokens, positions, segments, types] = inputs as [
        Int32Array,
        Int32Array,
        Int32Array,
        Int32Array,
      ]
      const places: { index: number; at: number }[] = []
      for (const [b, row] of rows.slice(i, i + B).entries()) {
        let at = b * T
        for (const [segment, j] of row.entries()) {
          const text = some[j]!
          places.push({ index: from + j, at })
          tokens.set(text.tokens, at)
          types.set(text.types, at)
          segments.fill(segment + 1, at, at + text.tokens.length)
          for (let k = 0; k < text.tokens.length; k++) positions[at + k] = k
          at += text.tokens.length
        }
      }
      const feed = (values: Int32Array) => int64([B, T], values)
      yield {
        feeds: {
          tokens: feed(tokens),
          positions: feed(positions),
          segments: feed(segments),
          types: feed(types),
        },
        texts: places,
      }
    }
  }
}
