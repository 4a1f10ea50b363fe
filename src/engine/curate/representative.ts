// How well training rows can be told from reference rows, under cross-validation, and which reference rows nothing in
// training resembles. An area of 0.5 under the ROC curve is what one wants.

import { uniform } from '../random.ts'
import { area } from './auc.ts'
import { round } from './balance.ts'

export interface AskedRow {
  readonly line: number
  readonly asked: string
}

export interface Unlike {
  line: number
  text: string
  /** How sure the classifier is, never having seen the row, that it is none of training's. */
  score: number
  /** The training row that resembles it most, and how much. */
  nearest: { line: number; similarity: number } | null
}

export interface Representativeness {
  features: string
  training_rows: number
  reference_rows: number
  /** Null where there are too few rows to say. */
  auc: number | null
  interval: [number, number] | null
  unlike: Unlike[]
}

/** Which rows are of the reference (1), and in which fold each is: it is scored by what the other folds teach. */
export interface Folds {
  readonly labels: Uint8Array
  readonly folds: Uint8Array
  readonly count: number
}

/** What rows are told apart by. */
export interface Features {
  readonly name: string
  /** Log odds that a row is of the reference: training rows first, in the order of their lists. */
  scores(all: readonly AskedRow[], folds: Folds): Promise<Float64Array>
  /** After `scores`. Rows that are `similar` to a training row are like training's, whatever their score. */
  nearest(): { similar: number; of(row: AskedRow, index: number): Unlike['nearest'] }
}

/**
 * As many as leave this many rows of the smaller file in each: then a row is scored by nearly all others. With 5 the area
 * was 0.004 less where a tenth of 3,000 rows is missing (docs/curation.md); of few rows a fold says too little.
 */
const FOLD_ROWS = 100
const FOLDS = { least: 5, most: 20 }
const LEAST = 40
const LISTED = 50

export async function compareWithReference(
  training: readonly AskedRow[],
  reference: readonly AskedRow[],
  features: Features,
): Promise<Representativeness> {
  const base = {
    features: features.name,
    training_rows: training.length,
    reference_rows: reference.length,
  }
  if (training.length < LEAST || reference.length < LEAST)
    return { ...base, auc: null, interval: null, unlike: [] }
  const all = [...training, ...reference]
  const labels = Uint8Array.from(all, (_, i) => (i < training.length ? 0 : 1))
  const wanted = Math.floor(Math.min(training.length, reference.length) / FOLD_ROWS)
  const count = Math.max(FOLDS.least, Math.min(FOLDS.most, wanted))
  const folds = foldsOf(labels, count)
  const scores = await features.scores(all, { labels, folds, count })
  const areas = Array.from({ length: count }, (_, fold) => {
    const of = (label: number) =>
      [...scores].filter((_, i) => folds[i] === fold && labels[i] === label)
    return area(of(0), of(1))
  })
  const auc = areas.reduce((sum, each) => sum + each.auc, 0) / count
  // The folds learn from much the same rows, so their mean varies more than that of as many strangers (Nadeau and
  // Bengio, 2003).
  const variance = areas.reduce((sum, each) => sum + each.variance, 0) / count
  const deviation = Math.sqrt(variance * (1 / count + 1 / (count - 1)))
  const interval: [number, number] = [
    round(Math.max(0, auc - 1.96 * deviation)),
    round(Math.min(1, auc + 1.96 * deviation)),
  ]
  return {
    ...base,
    auc: round(auc),
    interval,
    unlike:
      interval[0] > 0.5 ? unlikeRows(reference, scores.subarray(training.length), features) : [],
  }
}

/** Each class is spread evenly over the folds. */
function foldsOf(labels: Uint8Array, count: number): Uint8Array {
  const folds = new Uint8Array(labels.length)
  for (const label of [0, 1]) {
    const members = [...labels.keys()].filter((i) => labels[i] === label)
    const order = members.map((i, k) => ({ i, key: uniform(17, label, k) }))
    order.sort((a, b) => a.key - b.key)
    for (const [k, { i }] of order.entries()) folds[i] = k % count
  }
  return folds
}

/** Those that the classifier is surest of, without such as resemble a training row. */
function unlikeRows(
  reference: readonly AskedRow[],
  scores: Float64Array,
  features: Features,
): Unlike[] {
  const order = [...reference.keys()].sort((a, b) => scores[b]! - scores[a]!)
  const { similar, of } = features.nearest()
  const found: Unlike[] = []
  for (const i of order.slice(0, 3 * LISTED)) {
    if (found.length >= LISTED || scores[i]! <= 0) break
    const nearest = of(reference[i]!, i)
    if (nearest && nearest.similarity >= similar) continue
    const { line, asked } = reference[i]!
    found.push({
      line,
      text: asked.slice(0, 200),
      score: round(1 / (1 + Math.exp(-scores[i]!))),
      nearest: nearest && { ...nearest, similarity: round(nearest.similarity) },
    })
  }
  return found
}
