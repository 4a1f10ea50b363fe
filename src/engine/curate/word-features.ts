// Rows told apart by their words: single ones and pairs of neighbours, hashed, weighted by how rare they are, and naive
// Bayes over them. Needs no model.

import { setImmediate as breathe } from 'node:timers/promises'
import type { ComparedRows } from './compared-rows.ts'
import type { AskedRow, Features } from './representative.ts'
import { bagOf, hashWord, wordsOf } from './words.ts'

const DIMENSIONS = 2 ** 18

/** `rows`: all of the training file, among which the nearest are looked for. */
export const wordFeatures = (rows: ComparedRows): Features => ({
  name: 'words and pairs of words, hashed, tf-idf',
  async scores(all, { labels, folds, count }) {
    const vectors = vectorsOf(all.map(({ asked }) => asked))
    const scores = new Float64Array(vectors.length)
    for (let fold = 0; fold < count; fold++) {
      const score = train(vectors, labels, (i) => folds[i] !== fold)
      for (const [i, vector] of vectors.entries()) if (folds[i] === fold) scores[i] = score(vector)
      await breathe()
    }
    return scores
  },
  nearest: () => nearestByWords(rows),
})

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

/** Words that are looked through for each row that may be listed. */
const SEARCHED = 2_000_000
const SIMILAR = 0.6

/** The training row that has most words in common, rare ones counting more. */
function nearestByWords(rows: ComparedRows) {
  const step = Math.ceil(rows.bags.words / SEARCHED) || 1
  const documents = new Map<number, number>()
  let searched = 0
  for (let row = 0; row < rows.size; row += step, searched++)
    for (const word of new Set(rows.bags.at(row)))
      documents.set(word, (documents.get(word) ?? 0) + 1)
  const rarity = (word: number) => Math.log((searched + 1) / ((documents.get(word) ?? 0) + 0.5))
  const of = ({ asked }: AskedRow) => {
    const own = new Map([...new Set(bagOf(asked))].map((word) => [word, rarity(word)]))
    const all = [...own.values()].reduce((a, b) => a + b, 0)
    let nearest: { line: number; similarity: number } | null = null
    for (let row = 0; row < rows.size; row += step) {
      const bag = rows.bags.at(row)
      let shared = 0
      for (let k = 0; k < bag.length; k++)
        if (k === 0 || bag[k] !== bag[k - 1]) shared += own.get(bag[k]!) ?? 0
      const similarity = all > 0 ? shared / all : 0
      if (similarity > (nearest?.similarity ?? 0)) nearest = { line: rows.lineOf(row), similarity }
    }
    return nearest
  }
  return { similar: SIMILAR, of }
}
