// The metrics of a text_similarity grader, by name. `cosine` is not among them: it needs a model's vectors.

import { bleu } from './bleu.ts'
import { commonSubsequence } from './common-subsequence.ts'
import { gleu } from './gleu.ts'
import { meteor } from './meteor.ts'
import { rougeL, rougeN } from './rouge.ts'

/** How like `reference` the `input` is, 0 … 1. */
export type Similarity = (input: string, reference: string) => number

/** rapidfuzz's `ratio` / 100: twice the longest common subsequence of code points over both lengths. */
export const fuzzyMatch: Similarity = (input, reference) => {
  const [a, b] = [[...input], [...reference]]
  if (a.length + b.length === 0) return 1
  return (2 * commonSubsequence(a, b)) / (a.length + b.length)
}

/** All that texts alone decide. */
export const SIMILARITIES = {
  fuzzy_match: fuzzyMatch,
  bleu,
  gleu,
  meteor,
  rouge_1: rougeN(1),
  rouge_2: rougeN(2),
  rouge_3: rougeN(3),
  rouge_4: rougeN(4),
  rouge_5: rougeN(5),
  rouge_l: rougeL,
} satisfies Record<string, Similarity>

export type TextMetric = keyof typeof SIMILARITIES

/** The cosine of the angle between two vectors; 0 where one has no length. */
export function cosine(a: readonly number[], b: readonly number[]): number {
  let [dot, aa, bb] = [0, 0, 0]
  for (const [i, x] of a.entries()) {
    const y = b[i] ?? 0
    dot += x * y
    aa += x * x
    bb += y * y
  }
  return aa === 0 || bb === 0 ? 0 : dot / Math.sqrt(aa * bb)
}
