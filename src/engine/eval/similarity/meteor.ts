// METEOR (Lavie and Agarwal 2007) by exact words, then by stems. nltk's also matches synonyms by WordNet, which is
// not part of this program: where a text uses another word for the same thing, ours is lower.

import { stem } from './porter.ts'
import { wordsAndSigns } from './words.ts'

const [ALPHA, BETA, GAMMA] = [0.9, 3, 0.5]

/** 0 … 1. */
export function meteor(input: string, reference: string): number {
  const [found, wanted] = [input, reference].map((text) =>
    wordsAndSigns(text).map((word) => word.toLowerCase()),
  ) as [string[], string[]]
  const matches = align(found, wanted)
  if (matches.length === 0) return 0
  const precision = matches.length / found.length
  const recall = matches.length / wanted.length
  const mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
  return (1 - GAMMA * (chunks(matches) / matches.length) ** BETA) * mean
}

type Match = readonly [found: number, wanted: number]

/** Pairs of equal words, each used once, by place in `found`; of several the last one of `wanted` is taken. */
function align(found: readonly string[], wanted: readonly string[]): Match[] {
  const matches: Match[] = []
  let openFound = [...found.keys()]
  let openWanted = [...wanted.keys()]
  for (const keyOf of [(word: string) => word, stem]) {
    const places = new Map<string, number[]>()
    for (const j of openWanted) {
      const key = keyOf(wanted[j]!)
      const known = places.get(key)
      if (known) known.push(j)
      else places.set(key, [j])
    }
    const used = new Set<number>()
    const rest: number[] = []
    for (const i of openFound.toReversed()) {
      const j = places.get(keyOf(found[i]!))?.pop()
      if (j === undefined) rest.push(i)
      else {
        matches.push([i, j])
        used.add(j)
      }
    }
    openFound = rest.toReversed()
    openWanted = openWanted.filter((j) => !used.has(j))
  }
  return matches.sort(([a], [b]) => a - b)
}

/** Runs of matches that are adjacent in both texts. */
function chunks(matches: readonly Match[]): number {
  let count = 1
  for (let i = 1; i < matches.length; i++) {
    const [before, now] = [matches[i - 1]!, matches[i]!]
    if (now[0] !== before[0] + 1 || now[1] !== before[1] + 1) count++
  }
  return count
}
