// The text of a merge: YAML or JSON, read with limits, for it comes from outside.

import { LineCounter, parseAllDocuments } from 'yaml'
import { invalidRequest } from '../../errors.ts'

/** mergekit's own examples are below 2 kB. */
const MOST_BYTES = 256 * 1024
/** Nodes that aliases may unfold to; ten levels of ten aliases would be 10^10. */
const MOST_ALIASES = 100
const MOST_NODES = 50_000
const MOST_DOCUMENTS = 32

/**
 * The documents of a merge's text as plain values. Throws an ApiError that names the line of a mistake, and where
 * the text is longer, deeper or unfolds to more than any merge has.
 */
export function readMergeText(text: string): unknown[] {
  if (Buffer.byteLength(text) > MOST_BYTES)
    throw refuse(`it has more than ${MOST_BYTES / 1024} KiB`)
  const lines = new LineCounter()
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    merge: true,
    prettyErrors: false,
    uniqueKeys: true,
    customTags: [],
  })
  if (!Array.isArray(documents) || documents.length === 0) throw refuse('it is empty')
  if (documents.length > MOST_DOCUMENTS) throw refuse(`it has ${documents.length} documents`)
  const values = documents.map((document) => {
    const [error] = document.errors
    if (error) throw refuse(`line ${lines.linePos(error.pos[0]).line}: ${error.message}`)
    try {
      return document.toJS({ maxAliasCount: MOST_ALIASES }) as unknown
    } catch (cause) {
      throw refuse(cause instanceof Error ? cause.message : String(cause))
    }
  })
  checkMergeValues(values)
  return values.filter((value) => value !== null)
}

/** Throws where values are more or nested deeper than any merge's are. */
export function checkMergeValues(values: readonly unknown[]): void {
  const budget = { left: MOST_NODES }
  for (const value of values) count(value, 0, budget)
}

function count(value: unknown, depth: number, budget: { left: number }): void {
  if (--budget.left < 0) throw refuse(`it unfolds to more than ${MOST_NODES} values`)
  if (depth > 32) throw refuse('it is nested more than 32 levels deep')
  if (typeof value !== 'object' || value === null) return
  for (const item of Object.values(value)) count(item, depth + 1, budget)
}

const refuse = (why: string) =>
  invalidRequest(`The merge cannot be read: ${why}.`, { param: 'config', code: 'invalid_yaml' })
