// BLEU of one sentence as sacrebleu counts it: words by mteval's rules 13a, smoothing `exp`, effective order.
// Papineni et al. 2002; Chen and Cherry 2014, method 3.

import { ngrams, shared, total } from './counts.ts'

const MAX_ORDER = 4

/** 0 … 1. */
export function bleu(input: string, reference: string): number {
  const [found, wanted] = [words(input), words(reference)]
  const orders = Array.from({ length: MAX_ORDER }, (_, i) => i + 1)
  const correct = orders.map((n) => shared(ngrams(found, n), ngrams(wanted, n)))
  if (correct.every((count) => count === 0)) return 0

  const logs: number[] = []
  let halving = 1
  for (const [i, n] of orders.entries()) {
    const count = total(found, n)
    if (count === 0) break
    if (correct[i] === 0) halving *= 2
    logs.push(Math.log(correct[i] === 0 ? 1 / (halving * count) : correct[i]! / count))
  }
  const mean = logs.reduce((a, b) => a + b, 0) / logs.length
  const brevity = Math.min(0, 1 - wanted.length / found.length)
  return Math.exp(brevity + mean)
}

const ENTITIES: Record<string, string> = {
  '&quot;': '"',
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
}

/** Words as mteval-v13a cuts them: punctuation stands alone, but for `.`, `,` and `-` inside numbers. */
function words(text: string): string[] {
  let line = text.trimEnd().replaceAll('<skipped>', '').replaceAll('-\n', '').replaceAll('\n', ' ')
  for (const [entity, character] of Object.entries(ENTITIES))
    line = line.replaceAll(entity, character)
  return ` ${line} `
    .replace(/[{-~[-` -&(-+:-@/]/g, ' $& ')
    .replace(/([^0-9])([.,])/gu, '$1 $2 ')
    .replace(/([.,])([^0-9])/gu, ' $1 $2')
    .replace(/([0-9])(-)/g, '$1 $2 ')
    .split(/\s+/)
    .filter((word) => word !== '')
}
