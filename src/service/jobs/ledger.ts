// What is known of a job's training rows: how each did in each epoch, and which of them deserve a look first. Pure.

import type { RowLosses } from '../../engine/train/request.ts'

/** What rows may be ordered by; in each the first is the most remarkable. */
export const ORDERS = ['likely_wrong_label', 'never_learned', 'forgotten', 'loss'] as const
export type ExampleOrder = (typeof ORDERS)[number]

export interface RankedExample {
  /** In the training file, from 1. */
  line: number
  /** What the rows are ordered by: the greatest comes first. */
  score: number
  /** Of each epoch from the first on; null where the row was not learned from. */
  losses: (number | null)[]
}

/** The losses of all rows, epoch by epoch. */
export class Ledger {
  /** By epoch, then by line − 1; NaN where nothing is known. */
  readonly #epochs: Float32Array[]
  readonly #scores = new Map<ExampleOrder, Float64Array>()
  /** Lines of the file that are covered. */
  readonly #lines: number

  constructor(parts: readonly RowLosses[]) {
    let epochs = 0
    let lines = 0
    for (const part of parts) {
      if (part.lines.length > 0) epochs = Math.max(epochs, part.epoch)
      for (const line of part.lines) lines = Math.max(lines, line)
    }
    this.#lines = lines
    this.#epochs = Array.from({ length: epochs }, () => new Float32Array(lines).fill(Number.NaN))
    for (const { epoch, lines, losses } of parts)
      for (const [i, line] of lines.entries()) this.#epochs[epoch - 1]![line - 1] = losses[i]!
  }

  /** All rows that were learned from, or the first `count` behind the row `after`. */
  ranked(
    order: ExampleOrder,
    { after, count = Number.POSITIVE_INFINITY }: { after?: number; count?: number } = {},
  ): RankedExample[] {
    const scores = this.#scoresBy(order)
    const before = (a: number, b: number) => scores[b]! - scores[a]! || a - b
    let rows = Uint32Array.from(scores.keys()).filter((row) => !Number.isNaN(scores[row]))
    if (after !== undefined) rows = rows.filter((row) => before(after - 1, row) < 0)
    return [...first(rows, count, before)].map((row) => ({
      line: row + 1,
      score: scores[row]!,
      losses: this.#epochs.map((losses) => {
        const loss = losses[row]!
        return Number.isNaN(loss) ? null : loss
      }),
    }))
  }

  /** Whether the row was learned from. */
  has(line: number): boolean {
    return this.#epochs.some(
      (losses) => losses[line - 1] !== undefined && !Number.isNaN(losses[line - 1]),
    )
  }

  #scoresBy(order: ExampleOrder): Float64Array {
    const known = this.#scores.get(order)
    if (known) return known
    const scores =
      order === 'likely_wrong_label'
        ? wrongLabelScores(this.#epochs, this.#lines)
        : rowScores(this.#epochs, this.#lines, SCORES[order])
    this.#scores.set(order, scores)
    return scores
  }
}

/**
 * Of each row the share of rows that did better, a mean over the epochs but the first, each weighted by its mean loss.
 * What a model has not seen yet it gets wrong whatever the label, and what it has memorised it gets right even so;
 * in between, a wrong label is what goes against all that the other rows teach.
 */
function wrongLabelScores(epochs: readonly Float32Array[], lines: number): Float64Array {
  const sums = new Float64Array(lines)
  const weights = new Float64Array(lines)
  for (const losses of epochs.length > 1 ? epochs.slice(1) : epochs) {
    const rows = Uint32Array.from(losses.keys()).filter((row) => !Number.isNaN(losses[row]))
    if (rows.length === 0) continue
    const weight = rows.reduce((sum, row) => sum + losses[row]!, 0) / rows.length
    rows.sort((a, b) => losses[a]! - losses[b]! || b - a)
    for (const [rank, row] of rows.entries()) {
      sums[row]! += (weight * rank) / rows.length
      weights[row]! += weight
    }
  }
  return sums.map((sum, row) =>
    weights[row] === 0 ? unknownOrZero(epochs, row) : sum / weights[row]!,
  )
}

const unknownOrZero = (epochs: readonly Float32Array[], row: number): number =>
  epochs.every((losses) => Number.isNaN(losses[row])) ? Number.NaN : 0

/** A score that a row's own losses decide. */
function rowScores(
  epochs: readonly Float32Array[],
  lines: number,
  score: (losses: readonly number[]) => number,
): Float64Array {
  return new Float64Array(lines).map((_, row) => {
    const losses = epochs.map((epoch) => epoch[row]!).filter((loss) => !Number.isNaN(loss))
    return losses.length === 0 ? Number.NaN : score(losses)
  })
}

const SCORES: Record<
  Exclude<ExampleOrder, 'likely_wrong_label'>,
  (losses: readonly number[]) => number
> = {
  never_learned: (losses) => Math.min(...losses),
  forgotten: (losses) => {
    let lowest = losses[0]!
    let most = 0
    for (const loss of losses) {
      most = Math.max(most, loss - lowest)
      lowest = Math.min(lowest, loss)
    }
    return most
  },
  loss: (losses) => losses.at(-1)!,
}

/** The first `count` in order; a page of a large file need not have all of it sorted. */
function first(
  rows: Uint32Array,
  count: number,
  before: (a: number, b: number) => number,
): Uint32Array {
  if (count * 8 > rows.length) return rows.sort(before).slice(0, count)
  const kept: number[] = []
  for (const row of rows) {
    if (kept.length === count && before(kept.at(-1)!, row) < 0) continue
    let at = kept.length
    while (at > 0 && before(row, kept[at - 1]!) < 0) at--
    kept.splice(at, 0, row)
    if (kept.length > count) kept.pop()
  }
  return Uint32Array.from(kept)
}
