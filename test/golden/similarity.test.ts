import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { SIMILARITIES, type TextMetric } from '../../src/engine/eval/similarity/metrics.ts'
import { stem } from '../../src/engine/eval/similarity/porter.ts'

type Pair = { input: string; reference: string; rouge_1_ascii: number } & Record<TextMetric, number>

const path = fileURLToPath(new URL('fixtures/similarity.json', import.meta.url))
const { pairs, stems } = JSON.parse(readFileSync(path, 'utf8')) as {
  pairs: Pair[]
  stems: Record<string, string>
}

test.each(Object.keys(SIMILARITIES) as TextMetric[])(
  '%s is what the public implementation gives, on every pair',
  (metric) => {
    expect(pairs).toHaveLength(200)
    const differing = pairs
      .map((pair) => ({ ...pair, ours: SIMILARITIES[metric](pair.input, pair.reference) }))
      .filter((pair) => !(Math.abs(pair.ours - pair[metric]) <= 1e-6))
      .map(({ input, reference, ours, [metric]: theirs }) => ({ input, reference, ours, theirs }))
    expect(differing).toEqual([])
  },
)

test('the words of rouge-score, which keep a-z and 0-9 alone, differ on other scripts only', () => {
  const differing = pairs.filter((pair) => Math.abs(pair.rouge_1 - pair.rouge_1_ascii) > 1e-6)
  expect(differing.length).toBeGreaterThan(0)
  for (const { input, reference } of differing)
    expect(`${input}${reference}`).toMatch(/[^\p{ASCII}]/u)
})

test('stems are those of nltk', () => {
  const ours = Object.fromEntries(Object.keys(stems).map((word) => [word, stem(word)]))
  expect(ours).toEqual(stems)
})
