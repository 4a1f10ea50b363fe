// Rows of a text and what it is: one label, all labels that apply, or labelled spans of it.

import type { Format } from './format.ts'
import { isRecord, type RowReport, shown } from './report-row.ts'

export type ClassificationTask = 'single' | 'several' | 'tokens'

/** A stretch of a text in UTF-16 units, `end` exclusive. */
export interface Span {
  readonly start: number
  readonly end: number
  readonly label: string
}

const TASK_KEYS: Readonly<Record<string, ClassificationTask>> = {
  label: 'single',
  labels: 'several',
  spans: 'tokens',
}

export const classificationRows: Format = {
  name: 'classification',
  method: 'classification',
  shape: 'texts with a label, labels or spans',
  marks: ['text', 'label', 'labels', 'spans'],

  check(row, report) {
    const { text, text_pair } = row
    if (text === undefined) report.add('missing_text', '', "is missing the key 'text'")
    else if (typeof text !== 'string')
      report.add('data_type', '/text', "has a 'text' that is not a string")
    else if (text === '') report.add('missing_text', '/text', "has an empty 'text'")
    const keys = Object.keys(TASK_KEYS).filter((key) => row[key] !== undefined)
    if (keys.length === 0)
      report.add('missing_label', '', "has neither 'label' nor 'labels' nor 'spans'")
    if (keys.length > 1)
      report.add(
        'invalid_label',
        `/${keys[1]}`,
        `has '${keys.join("' and '")}', expected one of them`,
      )
    if (text_pair !== undefined && typeof text_pair !== 'string')
      report.add('data_type', '/text_pair', "has a 'text_pair' that is not a string")
    if (text_pair !== undefined && row.spans !== undefined)
      report.add(
        'invalid_label',
        '/text_pair',
        "has a 'text_pair', which rows with spans cannot have",
      )
    if (row.label !== undefined) checkLabel(row.label, '/label', report)
    if (row.labels !== undefined) checkLabels(row.labels, report)
    if (row.spans !== undefined) checkSpans(row.spans, typeof text === 'string' ? text : '', report)
  },
}

/** What a row that passed its checks asks to learn. */
export function taskOf(row: Readonly<Record<string, unknown>>): ClassificationTask {
  const key = Object.keys(TASK_KEYS).find((key) => row[key] !== undefined)
  return TASK_KEYS[key ?? 'label']!
}

function checkLabel(label: unknown, at: string, report: RowReport) {
  if (typeof label !== 'string')
    report.add('data_type', at, `has a label ${shown(label)} that is not a string`)
  else if (label.trim() === '') report.add('invalid_label', at, 'has an empty label')
}

function checkLabels(labels: unknown, report: RowReport) {
  if (!Array.isArray(labels))
    return report.add('data_type', '/labels', "has 'labels' that are no list")
  for (const [i, label] of labels.entries()) {
    checkLabel(label, `/labels/${i}`, report)
    if (labels.indexOf(label) < i)
      report.add('invalid_label', `/labels/${i}`, `has the label ${shown(label)} twice`)
  }
}

function checkSpans(spans: unknown, text: string, report: RowReport) {
  if (!Array.isArray(spans))
    return report.add('data_type', '/spans', "has 'spans' that are no list")
  const sound: (Span & { at: number })[] = []
  for (const [at, span] of spans.entries()) {
    const pointer = `/spans/${at}`
    if (!isRecord(span)) {
      report.add('data_type', pointer, 'has a span that is no JSON object')
      continue
    }
    checkLabel(span.label, `${pointer}/label`, report)
    const { start, end } = span
    if (!isPlace(start) || !isPlace(end) || start >= end || end > text.length)
      report.add(
        'invalid_span',
        pointer,
        `has a span ${shown(start)}–${shown(end)}, expected 0 ≤ start < end ≤ ${text.length}`,
      )
    else sound.push({ start, end, label: String(span.label), at })
  }
  sound.sort((a, b) => a.start - b.start || a.at - b.at)
  for (const [i, { start, at }] of sound.entries())
    if (i > 0 && sound[i - 1]!.end > start)
      report.add('invalid_span', `/spans/${at}`, `has spans that overlap at ${start}`)
}

const isPlace = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) >= 0
