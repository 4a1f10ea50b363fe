// What a search tries: points of a box, read as weights and densities. Knows numbers only.

import { type Box, evolve } from './evolution.ts'
import type { SearchSettings } from './search-settings.ts'

/** The numbers that a search chooses. */
export interface Choice {
  readonly weights: readonly number[]
  readonly density?: number
}

/** What a candidate is measured by. */
export type Measure =
  /** Mean loss a token: the lower, the better. */
  | { readonly loss: number; readonly score?: never }
  /** Of an eval: the higher, the better. */
  | { readonly score: number; readonly loss?: never }

export type Candidate = Choice &
  Measure & {
    /** From 1. */
    readonly candidate: number
    readonly budget: number
    readonly best: boolean
  }

/** What is searched, and where it begins. */
export interface Searched {
  readonly search: SearchSettings
  /** As they were sent. */
  readonly given: Choice
  readonly seed: number
}

/** Tries candidates until the budget is used; returns the best of them. The same arguments try the same ones. */
export async function* tryCandidates(
  { search, given, seed }: Searched,
  measure: (choice: Choice, candidate: number) => Promise<Measure>,
): AsyncGenerator<Candidate, Choice, undefined> {
  const { budget } = search
  const { box, start, read } = pointsOf(given, search)
  let chosen = read(start)
  let last: Measure = { loss: Number.NaN }
  const tried = evolve({ box, start, budget, seed }, async (point, candidate) => {
    last = await measure(read(point), candidate)
    return last.loss ?? -last.score
  })
  for await (const { candidate, point, best } of tried) {
    if (best) chosen = read(point)
    yield { candidate, budget, best, ...read(point), ...last }
  }
  return chosen
}

/** The numbers that are searched, as a point: all weights, or the density, or both. */
function pointsOf({ weights: given, density }: Choice, search: SearchSettings) {
  const count = search.weights ? given.length : 0
  const side = (at: 0 | 1) => [
    ...Array.from({ length: count }, () => search.weights![at]),
    ...(search.density ? [search.density[at]] : []),
  ]
  const box: Box = { low: side(0), high: side(1) }
  const sent = [...(search.weights ? given : []), ...(search.density ? [density ?? 1] : [])]
  return {
    box,
    start: sent.map((x, i) => Math.min(box.high[i]!, Math.max(box.low[i]!, x))),
    read: (point: readonly number[]): Choice => {
      const found = search.density ? point.at(-1) : density
      return {
        weights: search.weights ? point.slice(0, count) : given,
        ...(found !== undefined && { density: found }),
      }
    },
  }
}
