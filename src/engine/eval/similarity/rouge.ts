// ROUGE (Lin 2004): F1 of shared n-grams, or of the longest common subsequence of words. Words are runs of letters
// and digits of any script; the rouge-score package keeps a-z and 0-9 alone, so that it sees nothing of other scripts.

import { commonSubsequence } from './common-subsequence.ts'
import { ngrams, shared, total } from './counts.ts'
import { plainWords } from './words.ts'

/** ROUGE-n, 0 … 1. */
export const rougeN =
  (n: number) =>
  (input: string, reference: string): number => {
    const [found, wanted] = [plainWords(input), plainWords(reference)]
    const correct = shared(ngrams(found, n), ngrams(wanted, n))
    return f1(correct, total(found, n), total(wanted, n))
  }

/** ROUGE-L over the text as one sentence, 0 … 1. */
export function rougeL(input: string, reference: string): number {
  const [found, wanted] = [plainWords(input), plainWords(reference)]
  return f1(commonSubsequence(found, wanted), found.length, wanted.length)
}

const f1 = (correct: number, found: number, wanted: number): number =>
  correct === 0 ? 0 : (2 * correct) / (found + wanted)
