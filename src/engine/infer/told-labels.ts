// Rows of an encoder's output as answers: vectors, labels with probabilities, spans of words. Pure.

import type { EncodedWords } from '../datasets/encode-words.ts'
import { spansOfBio } from '../datasets/words.ts'
import type { Encoded } from './encode-request.ts'

/** A vector, or its first numbers; what had the length 1 has it again. */
export function embeddingOf(
  row: Float32Array,
  { dimensions, normalized }: { dimensions: number | undefined; normalized: boolean },
): Encoded {
  const cut = Array.from(row.subarray(0, dimensions))
  const length = normalized && cut.length < row.length ? Math.hypot(...cut) : 1
  return { type: 'embedding', vector: length > 0 ? cut.map((x) => x / length) : cut }
}

/** Logits of one text as probabilities of its labels, in the head's order. */
export function labelsOf(
  row: Float32Array,
  labels: readonly string[],
  task: 'single' | 'several' | 'tokens',
): Encoded {
  const scores = task === 'single' ? softmax(row) : Array.from(row, (x) => 1 / (1 + Math.exp(-x)))
  return {
    type: task === 'single' ? 'single' : 'several',
    scores: labels.map((label, i) => ({ label, score: scores[i]! })),
  }
}

/** Logits [words, L] of the words that have tokens as spans of the text. */
export function spansOf(
  rows: Float32Array,
  labels: readonly string[],
  { words, firsts }: EncodedWords,
): Encoded {
  const L = labels.length
  const told = words.filter((_, i) => firsts[i] !== undefined)
  const best = told.map((_, i) => {
    const scores = softmax(rows.subarray(i * L, (i + 1) * L))
    const at = scores.indexOf(Math.max(...scores))
    return { label: labels[at]!, score: scores[at]! }
  })
  return {
    type: 'tokens',
    labels: [...new Set(labels.filter((label) => label !== 'O').map((label) => label.slice(2)))],
    spans: spansOfBio(best.map(({ label }) => label)).map(({ label, from, to }) => ({
      start: told[from]!.start,
      end: told[to - 1]!.end,
      label,
      score: best.slice(from, to).reduce((n, { score }) => n + score, 0) / (to - from),
    })),
  }
}

function softmax(row: Float32Array): number[] {
  const most = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const powers = Array.from(row, (x) => Math.exp(x - most))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((p) => p / sum)
}
