// The rows that a run goes over: `{"item": {...}, "sample"?: {...}}`, each held against the eval's schema.

import { Errors } from 'typebox/schema'
import { readLines } from '../datasets/jsonl.ts'

export interface Item {
  item: Record<string, unknown>
  sample?: Record<string, unknown>
}

/** A JSON schema as the client sent it. */
export type ItemSchema = Record<string, unknown>

/** What is wrong with a row, or nothing. The schema may hold regular expressions that never end. */
export function mistakeOf(row: unknown, schema: ItemSchema): string | undefined {
  if (!isObject(row)) return 'expected an object'
  if (!isObject(row.item)) return "expected an object as 'item'"
  if (row.sample !== undefined && row.sample !== null && !isObject(row.sample))
    return "expected an object as 'sample'"
  let found: ReturnType<typeof Errors>
  try {
    found = Errors(schema, row.item)
  } catch (error) {
    // A schema that refers to itself alone, or whose patterns are none.
    return `cannot be held against the schema: ${error instanceof Error ? error.message : error}`
  }
  const [valid, errors] = found
  if (valid) return undefined
  const { instancePath, message } = errors[0] ?? { instancePath: '', message: 'does not fit' }
  return `'item${instancePath.replaceAll('/', '.')}' ${message}`
}

/** A deeper schema is nobody's. */
const MOST_LEVELS = 100

/** What is wrong with a schema before it meets a row, or nothing: patterns that are none, levels without end. */
export function mistakeOfSchema(schema: unknown, at = '', level = 0): string | undefined {
  if (level > MOST_LEVELS)
    return `is nested deeper than ${MOST_LEVELS} levels at ${at.slice(0, 60)}…`
  if (typeof schema !== 'object' || schema === null) return undefined
  for (const [name, part] of Object.entries(schema)) {
    const place = `${at}/${name}`
    const patterns =
      name === 'pattern' && typeof part === 'string'
        ? [part]
        : name === 'patternProperties' && isObject(part)
          ? Object.keys(part)
          : []
    const wrong = patterns.find((pattern) => !isPattern(pattern))
    if (wrong !== undefined) return `has no regular expression at ${place}: ${wrong.slice(0, 60)}`
    const mistake = mistakeOfSchema(part, place, level + 1)
    if (mistake !== undefined) return mistake
  }
  return undefined
}

/** As the schema's reader takes it. */
function isPattern(pattern: string): boolean {
  try {
    new RegExp(pattern, 'u')
    return true
  } catch {
    return false
  }
}

/** One row of a file, or what is wrong with it. */
export type ReadItem =
  | { index: number; item: Item }
  | { index: number; line: number; error: string }

/** Reads rows from the one at `from` on; empty lines are no rows. */
export async function* readItems(
  path: string,
  schema: ItemSchema,
  from = 0,
): AsyncGenerator<ReadItem, void, undefined> {
  let index = 0
  for await (const line of readLines(path)) {
    if ('text' in line && line.text.trim() === '') continue
    const at = index++
    if (at < from) continue
    const read = 'error' in line ? { error: line.error } : parse(line.text, schema)
    if ('error' in read) yield { index: at, line: line.number, error: read.error }
    else yield { index: at, item: read }
  }
}

function parse(text: string, schema: ItemSchema): Item | { error: string } {
  let row: unknown
  try {
    row = JSON.parse(text)
  } catch {
    return { error: 'is no JSON' }
  }
  const error = mistakeOf(row, schema)
  if (error !== undefined) return { error }
  return row as Item
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
