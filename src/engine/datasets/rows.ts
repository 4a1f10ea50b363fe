// A line of a training file: parsed, its format recognised, checked. The table of row formats.

import { chatRows } from './chat-rows.ts'
import { classificationRows } from './classification-rows.ts'
import { completionRows } from './completion-rows.ts'
import { embeddingRows } from './embedding-rows.ts'
import type { RowError, RowFormat } from './example.ts'
import type { Format } from './format.ts'
import type { Line } from './jsonl.ts'
import { preferenceRows } from './preference-rows.ts'
import { isRecord, reportRow } from './report-row.ts'
import { textRows } from './text-rows.ts'

/** Every format a file of purpose `fine-tune` may have. */
export const rowFormats: Readonly<Record<RowFormat, Format>> = {
  chat: chatRows,
  completion: completionRows,
  text: textRows,
  preference: preferenceRows,
  classification: classificationRows,
  embedding: embeddingRows,
}

/** The one of these formats that a parsed row means to have. */
export function detectFormat(
  row: unknown,
  formats: readonly RowFormat[] = CONTINUED,
): RowFormat | undefined {
  if (!isRecord(row)) return undefined
  return formats.find((name) => rowFormats[name].marks.some((key) => key in row))
}

/** `either prompt/completion pairs or chat messages`, as OpenAI says it: what is most usual comes last. */
function shapesOf(formats: readonly RowFormat[]): string {
  const shapes = formats.flatMap((name) => rowFormats[name].shape ?? []).reverse()
  return shapes.length === 2 ? `either ${shapes.join(' or ')}` : shapes.join(' or ')
}

/** Text to be continued. */
export const CONTINUED: readonly RowFormat[] = ['chat', 'completion', 'text']

/** A line that was read: its row and format, and what is wrong with it. */
export interface CheckedRow {
  readonly row: Readonly<Record<string, unknown>> | undefined
  readonly format: RowFormat | undefined
  readonly errors: readonly RowError[]
}

/** Parses and checks one line of a file whose rows so far had `expected`, and which may have one of `formats`. */
export function checkLine(
  line: Line,
  expected?: RowFormat,
  formats: readonly RowFormat[] = CONTINUED,
): CheckedRow {
  const report = reportRow(line.number)
  const refuse = (check: string, what: string): CheckedRow => {
    report.add(check, '', what)
    return { row: undefined, format: undefined, errors: report.errors }
  }
  if ('error' in line) return refuse('invalid_utf8', line.error)
  if (line.text.trim() === '') return refuse('empty_line', 'is an empty line')
  let value: unknown
  try {
    value = JSON.parse(line.text)
  } catch {
    return refuse('invalid_json', 'is not valid JSON')
  }
  return checkRow(line.number, value, expected, formats)
}

/** Checks one parsed row. */
export function checkRow(
  line: number,
  value: unknown,
  expected?: RowFormat,
  formats: readonly RowFormat[] = CONTINUED,
): CheckedRow {
  const report = reportRow(line)
  const done = (row?: Readonly<Record<string, unknown>>, format?: RowFormat): CheckedRow => ({
    row,
    format,
    errors: report.errors,
  })
  if (!isRecord(value)) {
    report.add('data_type', '', 'is not a JSON object')
    return done()
  }
  const format = detectFormat(value, formats) ?? expected
  const foreign = format ? undefined : detectFormat(value, Object.keys(rowFormats) as RowFormat[])
  if (foreign) {
    const { method } = rowFormats[foreign]
    report.add(
      'format_of_another_method',
      '',
      `is in the fine-tune-${foreign} format, but the specified fine-tuning job is not using '${method}' as the training method`,
    )
    return done(value)
  }
  if (format === undefined) {
    report.add(
      'unexpected_format',
      '',
      `has an unexpected file format, expected ${shapesOf(formats)}.`,
    )
    return done(value)
  }
  if (expected !== undefined && format !== expected) {
    report.add('mixed_formats', '', `is in the ${format} format, the rows before are ${expected}`)
    return done(value, format)
  }
  rowFormats[format].check(value, report)
  return done(value, format)
}
