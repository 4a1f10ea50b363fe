// How well training rows can be told from reference rows, by a small classifier under cross-validation, and which
// reference rows nothing in training resembles. Features: single words and pairs of neighbours, hashed, weighted by how
// rare they are (no encoder is needed). An area of 0.5 under the ROC curve is what one wants.

import { setImmediate as breathe } from 'node:timers/promises'
import { uniform } from '../random.ts'
import { round } from './balance.ts'
import type { ComparedRows } from './compared-rows.ts'
import { bagOf, hashWord, wordsOf } from './words.ts'

export interface AskedRow {
  readonly line: number
  readonly asked: string
}

export interface Unlike {
  line: number
  text: string
  /** How sure the classifier is, never having seen the row, that it is none of training's. */
  score: number
  /** The training row that has most in common with it, and how much, rare words counting more. */
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

const FEATURES = 'words and pairs of words, hashed, tf-idf'
const DIMENSIONS = 2 ** 18
const FOLDS = 5
const LEAST = 40
export const MOST_TRAINING = 10_000
export const MOST_REFERENCE = 5_000
const LISTED = 50

export async function compareWithReference(
  training: readonly AskedRow[],
  reference: readonly AskedRow[],
  rows: ComparedRows,
): Promise<Representativeness> {
  const base = {
    features: FEATURES,
    training_rows: training.length,
    reference_rows: reference.length,
  }
  if (training.length < LEAST || reference.length < LEAST)
    return { ...base, auc: null, interval: null, unlike: [] }
  const vectors = vectorsOf([...training, ...reference].map(({ asked }) => asked))
  const labels = Uint8Array.from(vectors, (_, i) => (i < training.length ? 0 : 1))
  const folds = foldsOf(labels)
  const scores = new Float64Array(vectors.length)
  const areas: { auc: number; variance: number }[] = []
  for (let fold = 0; fold < FOLDS; fold++) {
    const score = train(vectors, labels, (i) => folds[i] !== fold)
    const [negative, positive]: [number[], number[]] = [[], []]
    for (const [i, vector] of vectors.entries()) {
      if (folds[i] !== fold) continue
      scores[i] = score(vector)
      ;(labels[i] === 0 ? negative : positive).push(scores[i]!)
    }
    areas.push(area(negative, positive))
    await breathe()
  }
  const auc = areas.reduce((sum, each) => sum + each.auc, 0) / FOLDS
  // The folds learn from much the same rows, so their mean varies more than that of as many strangers (Nadeau and
  // Bengio, 2003).
  const variance = areas.reduce((sum, each) => sum + each.variance, 0) / FOLDS
  const deviation = Math.sqrt(variance * (1 / FOLDS + 1 / (FOLDS - 1)))
  const interval: [number, number] = [
    round(Math.max(0, auc - 1.96 * deviation)),
    round(Math.min(1, auc + 1.96 * deviation)),
  ]
  return {
    ...base,
    auc: round(auc),
    interval,
    unlike: interval[0] > 0.5 ? unlikeRows(reference, scores.subarray(training.length), rows) : [],
  }
}

interface Vector {
  readonly at: Uint32Array
  readonly value: Float32Array
}

function vectorsOf(texts: readonly string[]): Vector[] {
  const documents = new Uint32Array(DIMENSIONS)
  const features = texts.map((text) => {
    const words = wordsOf(text)
    const set = new Set<number>()
    for (const [i, word] of words.entries()) {
      set.add(hashWord(word) % DIMENSIONS)
      if (i > 0) set.add(hashWord(`${words[i - 1]} ${word}`) % DIMENSIONS)
    }
    for (const feature of set) documents[feature]!++
    return set
  })
  return features.map((set) => {
    // What occurs in one text alone tells nothing of any other.
    const at = Uint32Array.from([...set].filter((feature) => documents[feature]! > 1))
    const value = Float32Array.from(at, (f) => Math.log(texts.length / documents[f]!))
    const length = Math.hypot(...value) || 1
    return { at, value: value.map((v) => v / length) }
  })
}

/** Each class is spread evenly over the folds. */
function foldsOf(labels: Uint8Array): Uint8Array {
  const folds = new Uint8Array(labels.length)
  for (const label of [0, 1]) {
    const members = [...labels.keys()].filter((i) => labels[i] === label)
    const order = members.map((i, k) => ({ i, key: uniform(17, label, k) }))
    order.sort((a, b) => a.key - b.key)
    for (const [k, { i }] of order.entries()) folds[i] = k % FOLDS
  }
  return folds
}

/** Seen so often besides, in either class: what was seen once proves little. */
const SMOOTHING = 1

/** Naive Bayes: how much likelier a row's features are among reference rows, each weighing as the vector has it. */
function train(
  vectors: readonly Vector[],
  labels: Uint8Array,
  learned: (i: number) => boolean,
): (vector: Vector) => number {
  const counts = [new Float64Array(DIMENSIONS), new Float64Array(DIMENSIONS)] as const
  const rows = [4 * SMOOTHING, 4 * SMOOTHING] as [number, number]
  for (const [i, { at }] of vectors.entries()) {
    if (!learned(i)) continue
    const label = labels[i] as 0 | 1
    rows[label]++
    for (const feature of at) counts[label][feature]!++
  }
  const prior = Math.log(rows[0] / rows[1])
  return ({ at, value }) => {
    let sum = 0
    for (let k = 0; k < at.length; k++) {
      const feature = at[k]!
      const odds = (counts[1][feature]! + SMOOTHING) / (counts[0][feature]! + SMOOTHING)
      sum += value[k]! * (Math.log(odds) + prior)
    }
    return sum
  }
}

/** The area under the ROC curve and its variance (DeLong, DeLong and Clarke-Pearson, 1988). */
export function area(
  negative: readonly number[],
  positive: readonly number[],
): { auc: number; variance: number } {
  const below = (sorted: Float64Array, x: number) => {
    const count = (least: (value: number) => boolean) => {
      let [from, to] = [0, sorted.length]
      while (from < to) {
        const middle = (from + to) >> 1
        if (least(sorted[middle]!)) to = middle
        else from = middle + 1
      }
      return from
    }
    return (count((v) => v >= x) + count((v) => v > x)) / 2
  }
  const sortedNegative = Float64Array.from(negative).sort()
  const sortedPositive = Float64Array.from(positive).sort()
  const ofPositive = positive.map((x) => below(sortedNegative, x) / negative.length)
  const ofNegative = negative.map((x) => 1 - below(sortedPositive, x) / positive.length)
  const mean = (list: readonly number[]) => list.reduce((a, b) => a + b, 0) / list.length
  const spread = (list: readonly number[]) => {
    const m = mean(list)
    return list.reduce((sum, x) => sum + (x - m) ** 2, 0) / (list.length - 1) / list.length
  }
  return { auc: mean(ofPositive), variance: spread(ofPositive) + spread(ofNegative) }
}

/** Words that are looked through for each row that may be listed. */
const SEARCHED = 2_000_000
const SIMILAR = 0.6

function unlikeRows(
  reference: readonly AskedRow[],
  scores: Float64Array,
  rows: ComparedRows,
): Unlike[] {
  const order = [...reference.keys()].sort((a, b) => scores[b]! - scores[a]!)
  const step = Math.ceil(rows.bags.words / SEARCHED) || 1
  const documents = new Map<number, number>()
  let searched = 0
  for (let row = 0; row < rows.size; row += step, searched++)
    for (const word of new Set(rows.bags.at(row)))
      documents.set(word, (documents.get(word) ?? 0) + 1)
  const rarity = (word: number) => Math.log((searched + 1) / ((documents.get(word) ?? 0) + 0.5))

  const found: Unlike[] = []
  for (const i of order.slice(0, 3 * LISTED)) {
    if (found.length >= LISTED || scores[i]! <= 0) break
    const { line, asked } = reference[i]!
    const own = new Map([...new Set(bagOf(asked))].map((word) => [word, rarity(word)]))
    const all = [...own.values()].reduce((a, b) => a + b, 0)
    let nearest: Unlike['nearest'] = null
    for (let row = 0; row < rows.size; row += step) {
      const bag = rows.bags.at(row)
      let shared = 0
      for (let k = 0; k < bag.length; k++)
        if (k === 0 || bag[k] !== bag[k - 1]) shared += own.get(bag[k]!) ?? 0
      const similarity = all > 0 ? shared / all : 0
      if (similarity > (nearest?.similarity ?? 0)) nearest = { line: rows.lineOf(row), similarity }
    }
    if (nearest && nearest.similarity >= SIMILAR) continue
    const score = round(1 / (1 + Math.exp(-scores[i]!)))
    found.push({
      line,
      text: asked.slice(0, 200),
      score,
      nearest: nearest && { ...nearest, similarity: round(nearest.similarity) },
    })
  }
  return found
}
