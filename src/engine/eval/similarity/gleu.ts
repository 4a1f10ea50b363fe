// Google BLEU (Wu et al. 2016, section 6): the lesser of precision and recall over all n-grams up to four words.

import { ngrams, shared, total } from './counts.ts'
import { wordsAndSigns } from './words.ts'

/** 0 … 1, as nltk's sentence_gleu. */
export function gleu(input: string, reference: string): number {
  const [found, wanted] = [wordsAndSigns(input), wordsAndSigns(reference)]
  let [correct, foundCount, wantedCount] = [0, 0, 0]
  for (let n = 1; n <= 4; n++) {
    correct += shared(ngrams(found, n), ngrams(wanted, n))
    foundCount += total(found, n)
    wantedCount += total(wanted, n)
  }
  const larger = Math.max(foundCount, wantedCount)
  return larger === 0 ? 0 : correct / larger
}
