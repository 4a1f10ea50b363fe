// Which rows are held back for validation: chosen by what they say, so that the same file is always split in the same
// way, and near-duplicates whole. A set of lines as text, small enough to be kept with a plan.

import type { ComparedRows } from './compared-rows.ts'
import { mix } from './words.ts'

export interface SplitRow {
  readonly line: number
  /** Rows of one cluster stay together. */
  readonly cluster: number
  /** A hash of what the row says. */
  readonly content: number
  /** Labels that must be left to learn from. */
  readonly labels: readonly string[]
}

/** Rows of a file as they are split. */
export function* splitRows(
  rows: ComparedRows,
  labelsOf: (row: number) => readonly string[] = () => [],
): Generator<SplitRow> {
  for (let row = 0; row < rows.size; row++)
    yield {
      line: rows.lineOf(row),
      cluster: rows.clusterOf(row),
      content: rows.contentOf(row),
      labels: labelsOf(row),
    }
}

/**
 * The lines that are held back: clusters in the order of their hashes, as long as they fit, until the share is reached
 * as nearly as it can be. A cluster with the last row of a label stays. At least one line, where any can be spared.
 */
export function heldBack(rows: Iterable<SplitRow>, share: number): number[] {
  const clusters = new Map<number, { order: number; rows: SplitRow[] }>()
  const left = new Map<string, number>()
  let count = 0
  for (const row of rows) {
    count++
    const order = orderOf(row.content)
    const cluster = clusters.get(row.cluster)
    if (cluster) {
      cluster.rows.push(row)
      cluster.order = Math.min(cluster.order, order)
    } else clusters.set(row.cluster, { order, rows: [row] })
    for (const label of row.labels) left.set(label, (left.get(label) ?? 0) + 1)
  }
  const wanted = Math.max(1, Math.round(count * share))
  const lines: number[] = []
  for (const cluster of [...clusters.values()].sort((a, b) => a.order - b.order)) {
    if (lines.length >= wanted) break
    if (lines.length + cluster.rows.length > wanted) continue
    const taken = new Map<string, number>()
    for (const { labels } of cluster.rows)
      for (const label of labels) taken.set(label, (taken.get(label) ?? 0) + 1)
    if ([...taken].some(([label, n]) => left.get(label)! <= n)) continue
    for (const [label, n] of taken) left.set(label, left.get(label)! - n)
    for (const { line } of cluster.rows) lines.push(line)
  }
  return lines.sort((a, b) => a - b)
}

/** 53 bits mixed anew: the hash itself is used up where texts are told apart by it. */
const orderOf = (content: number): number => {
  const low = content >>> 0
  return mix(mix(low) ^ Math.floor(content / 2 ** 32)) * 2 ** 21 + (low & 0x1fffff)
}

/** Lines as a string: a bit each, in base64. */
export function packLines(lines: readonly number[]): string {
  const bits = new Uint8Array(((lines.at(-1) ?? 0) >> 3) + 1)
  for (const line of lines) bits[line >> 3]! |= 1 << (line & 7)
  return Buffer.from(bits).toString('base64')
}

/** Whether a line is in the set that `packLines` wrote down. */
export function lineSet(packed: string): (line: number) => boolean {
  const bits = Buffer.from(packed, 'base64')
  return (line) => ((bits[line >> 3] ?? 0) & (1 << (line & 7))) !== 0
}
