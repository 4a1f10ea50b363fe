// A whole training file judged: every mistake with its line, and how much there is to learn.

import { ApiError } from '../../errors.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import { GrowingList, TextSet } from './compact.ts'
import { type RowEncoder, RowFault, rowEncoder, type Truncation } from './encode.ts'
import type { RowError, RowFormat } from './example.ts'
import { readLines } from './jsonl.ts'
import { DetailsOfRows, type RowDetails } from './row-details.ts'
import { checkLine } from './rows.ts'

export interface InspectOptions {
  /** Without one nothing is counted in tokens, and no template is tried. */
  readonly tokenizer?: Tokenizer
  readonly chat_template?: string | undefined
  readonly max_sequence_length: number
  /** Absent: longer rows are cut. */
  readonly truncation?: Truncation | undefined
  /** Only these lines; absent: all. Of the others nothing is said. */
  readonly wanted?: ((line: number) => boolean) | undefined
  /** Is told now and then how many rows there were. */
  readonly tell?: ((rows: number) => void) | undefined
  /** Whether the lengths of rows are to be told, and some rows shown. */
  readonly detailed?: boolean | undefined
  /** How rows become examples; absent: as text to be continued. */
  readonly encoder?: RowEncoder
}

export interface InspectedFile {
  format: RowFormat | undefined
  /** Without those that are dropped. */
  examples: number
  tokens: number
  /** Tokens with a loss weight above 0. */
  trained_tokens: number
  /** Examples cut to `max_sequence_length`. */
  truncated: number
  /** Rows left out because they are longer. */
  dropped: number
  /** At most 100; `error_count` is the true number. */
  errors: RowError[]
  error_count: number
  warnings: string[]
  /** Where they were asked for. */
  details?: RowDetails
  /** Tokens of each example after cutting, in the file's order; empty without a tokenizer. */
  lengths: Int32Array
  /** How many of them are learned. */
  trained: Int32Array
  /** How many different tokens occur. */
  distinct: number
}

const KEPT_ERRORS = 100

/**
 * Reads a file to its end and collects every mistake. How many examples are enough is for the caller to say.
 * Throws only what is not the file's fault: no such file, a model without a chat template.
 */
export async function inspectFile(path: string, options: InspectOptions): Promise<InspectedFile> {
  const { tokenizer, chat_template, max_sequence_length, truncation = 'truncate' } = options
  const encoder =
    options.encoder ?? (tokenizer && rowEncoder({ tokenizer, chat_template, max_sequence_length }))
  const errors: RowError[] = []
  const lengths = new GrowingList()
  const learned = new GrowingList()
  const occurring = new Set<number>()
  const count = {
    rows: 0,
    errors: 0,
    tokens: 0,
    trained: 0,
    truncated: 0,
    dropped: 0,
    skipped: 0,
    twice: 0,
  }
  const seen = new TextSet()
  const rows = options.detailed ? new DetailsOfRows() : undefined
  let read = 0
  let expected: RowFormat | undefined

  const refuse = (error: RowError) => {
    count.errors++
    if (errors.length < KEPT_ERRORS) errors.push(tellable(error))
  }

  for await (const line of readLines(path)) {
    if (++read % 1000 === 0) options.tell?.(read)
    if (options.wanted && !options.wanted(line.number)) continue
    const { row, format, errors: found } = checkLine(line, expected, encoder?.formats)
    expected ??= format
    if (row) count.rows++
    for (const error of found) refuse(error)
    if (found.length > 0 || !row || !format || 'error' in line) continue

    if (!seen.add(line.text)) count.twice++
    if (!encoder) continue

    try {
      const example = encoder.encode(line.number, row, format)
      if (example.truncated && truncation === 'error')
        throw new RowFault('too_long', '', `is longer than ${max_sequence_length} tokens`)
      if (example.truncated && truncation === 'drop') {
        count.dropped++
        continue
      }
      const trained = example.weights.reduce((n, weight) => n + (weight > 0 ? 1 : 0), 0)
      lengths.push(example.tokens.length)
      learned.push(trained)
      for (const id of example.tokens) occurring.add(id)
      rows?.add(example, trained)
      count.tokens += example.tokens.length
      count.trained += trained
      count.truncated += example.truncated ? 1 : 0
      count.skipped += example.skipped
      if (trained === 0) refuse(nothingToLearn(line.number, example.truncated, max_sequence_length))
    } catch (error) {
      if (error instanceof RowFault) {
        const { check, pointer, message } = error
        refuse({ line: line.number, pointer, check, message })
        continue
      }
      if (!(error instanceof ApiError) || error.param !== 'messages') throw error
      refuse({
        line: line.number,
        pointer: '/messages',
        check: 'chat_template',
        message: error.message,
      })
    }
  }

  return {
    format: expected,
    examples: count.rows - count.dropped,
    tokens: count.tokens,
    trained_tokens: count.trained,
    truncated: count.truncated,
    dropped: count.dropped,
    errors,
    error_count: count.errors,
    warnings: warningsOf(count, max_sequence_length),
    ...(rows && tokenizer && { details: rows.details(tokenizer) }),
    lengths: lengths.values(),
    trained: learned.values(),
    distinct: occurring.size,
  }
}

/** Keys of a row may hold what no database keeps as text. */
const tellable = ({ pointer, message, ...error }: RowError): RowError => ({
  ...error,
  pointer: asText(pointer),
  message: asText(message),
})

/** NUL and halves of surrogate pairs become U+FFFD. */
const asText = (text: string) => text.replace(/\0|\p{Surrogate}/gu, '\ufffd')

const nothingToLearn = (line: number, truncated: boolean, length: number): RowError => ({
  line,
  pointer: '',
  check: 'nothing_to_learn',
  message: truncated
    ? `is longer than ${length} tokens, and what is left of it holds nothing to learn`
    : 'holds nothing to learn',
})

function warningsOf(
  {
    twice,
    truncated,
    dropped,
    skipped,
  }: Record<'twice' | 'truncated' | 'dropped' | 'skipped', number>,
  length: number,
): string[] {
  const warnings: string[] = []
  if (twice > 0) warnings.push(`${twice} example(s) are exact duplicates of earlier ones.`)
  if (truncated > 0)
    warnings.push(`${truncated} example(s) are longer than ${length} tokens and were truncated.`)
  if (dropped > 0)
    warnings.push(`${dropped} example(s) are longer than ${length} tokens and were dropped.`)
  if (skipped > 0)
    warnings.push(
      `${skipped} assistant message(s) are not learned: the model's chat template shows them differently once more messages follow.`,
    )
  return warnings
}
