// What a search tries: points of a box, read as weights and densities. Knows numbers only.

import type { Box } from './evolution.ts'
import type { SearchSettings } from './search-settings.ts'

export interface Candidate {
  /** From 1. */
  readonly candidate: number
  readonly weights: readonly number[]
  readonly density?: number
  /** Mean loss a token: the lower, the better. */
  readonly loss?: number
  /** Of an eval: the higher, the better. */
  readonly score?: number
  readonly best: boolean
}

/** The numbers that are searched, as a point: all weights, or the density, or both. */
export function pointsOf(
  { weights: given, density }: { weights: readonly number[]; density?: number },
  search: SearchSettings,
) {
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
    read: (point: readonly number[]) => {
      const found = search.density ? point.at(-1) : density
      return {
        weights: search.weights ? point.slice(0, count) : given,
        ...(found !== undefined && { density: found }),
      }
    },
  }
}
