// A checked file as examples: tokens with loss weights, cut to the greatest length.

import type { ChatCoder } from '../tokenizer/assistant-mask.ts'
import type { Example, RowFormat } from './example.ts'
import { readLines } from './jsonl.ts'
import { CONTINUED, checkLine, rowFormats } from './rows.ts'

export interface EncodeOptions extends ChatCoder {
  readonly max_sequence_length: number
}

/** What becomes of a row that is longer than `max_sequence_length`. */
export type Truncation = 'truncate' | 'drop' | 'error'

export interface EncodedExample extends Example {
  /** The row was longer than `max_sequence_length`. */
  readonly truncated: boolean
  /** Assistant messages of weight 1 that the template makes impossible to learn. */
  readonly skipped: number
  /** What lies beyond `max_sequence_length`, where that is known. */
  readonly cut?: { readonly tokens: number; readonly trained: number }
}

/** How the rows of a file become examples. */
export interface RowEncoder {
  /** Which formats the file may have. */
  readonly formats: readonly RowFormat[]
  /** Takes a row that passed its format's checks; throws RowFault for what only now turns out to be wrong. */
  encode(line: number, row: Readonly<Record<string, unknown>>, format: RowFormat): EncodedExample
}

/** Something wrong with a row that its format cannot see. */
export class RowFault extends Error {
  readonly check: string
  readonly pointer: string

  constructor(check: string, pointer: string, message: string) {
    super(message)
    this.check = check
    this.pointer = pointer
  }
}

/** Rows of text to be continued. */
export const rowEncoder = (options: EncodeOptions): RowEncoder => ({
  formats: CONTINUED,
  encode: (line, row, format) => encodeRow(line, row, format, options),
})

/** Encodes one row that passed its checks. */
export function encodeRow(
  line: number,
  row: Readonly<Record<string, unknown>>,
  format: RowFormat,
  options: EncodeOptions,
): EncodedExample {
  const { encode } = rowFormats[format]
  if (!encode) throw new Error(`Rows of the ${format} format are no text to be continued.`)
  const { tokens, weights, skipped } = encode(row, options)
  const length = Math.min(tokens.length, options.max_sequence_length)
  const left = Float32Array.from(weights.slice(0, length))
  // Nothing predicts the first token.
  if (length > 0) left[0] = 0
  return {
    line,
    tokens: Int32Array.from(tokens.slice(0, length)),
    weights: left,
    truncated: length < tokens.length,
    skipped,
    ...(length < tokens.length && {
      cut: {
        tokens: tokens.length - length,
        trained: weights.slice(length).filter((weight) => weight > 0).length,
      },
    }),
  }
}

/** Every row of a file that inspection found without errors, or those of some lines; throws at the first that has one. */
export async function encodeFile(
  path: string,
  encoder: RowEncoder,
  truncation: Truncation = 'truncate',
  wanted: (line: number) => boolean = () => true,
): Promise<Example[]> {
  const examples: Example[] = []
  let expected: RowFormat | undefined
  for await (const line of readLines(path)) {
    const { row, format, errors } = checkLine(line, expected, encoder.formats)
    if (errors[0] || !row || !format)
      throw new Error(`Line ${line.number} ${errors[0]?.message ?? 'is not a training row'}`)
    expected ??= format
    if (!wanted(line.number)) continue
    const { truncated, skipped: _, cut: __, ...example } = encoder.encode(line.number, row, format)
    if (!truncated || truncation !== 'drop') examples.push(example)
  }
  return examples
}
