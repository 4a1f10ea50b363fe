// Successive halving (arXiv 1502.07943): which trials there are, how far each goes, and which of them go on. Pure.

import { uniform } from '../../engine/random.ts'

/** What is searched; what is absent stays as the job has it. */
export interface Search {
  learning_rate?: Range
  rank?: Choice
  n_epochs?: Choice
  batch_size?: Choice
}

/** Drawn evenly on a logarithmic scale. */
export type Range = { min: number; max: number } | { values: number[] }
export interface Choice {
  values: number[]
}

/** One point of the space; the first trial of a sweep is the job as it was sent, `{}`. */
export type Point = Partial<Record<keyof Search, number>>

/** Trials are compared when they have run so large a share of their own steps; after the last they run to the end. */
export const SHARES = [0.25, 0.5] as const

/** At each comparison one in two goes on; two run to their end. */
const survivors = (trials: number, rung: number): number => {
  let left = trials
  for (let i = 0; i < rung; i++) left = Math.max(Math.min(2, left), Math.ceil(left / 2))
  return left
}

/** How a job of this size goes through its rows. */
export interface Size {
  /** At most. */
  rows: number
  n_epochs: number
  batch_size: number
}

/** Never less than the steps of the job that comes of it. */
export const stepsOf = (point: Point, { rows, n_epochs, batch_size }: Size): number =>
  Math.ceil(rows / Math.min(rows, point.batch_size ?? batch_size)) * (point.n_epochs ?? n_epochs)

/** The most steps that trials of so many steps each may take together, whichever of them go on. */
export function greatestCost(steps: readonly number[]): number {
  const ordered = steps.toSorted((a, b) => b - a)
  let cost = 0
  for (let rung = 0; rung <= SHARES.length; rung++) {
    const to = SHARES[rung] ?? 1
    const from = rung === 0 ? 0 : SHARES[rung - 1]!
    for (const total of ordered.slice(0, survivors(steps.length, rung)))
      cost += Math.ceil(to * total) - Math.ceil(from * total)
  }
  return cost
}

/** Trial `i` of a sweep, whatever the others are. */
export function pointAt(search: Search, seed: number, i: number): Point {
  if (i === 0) return {}
  const point: Point = {}
  for (const [axis, name] of (
    ['learning_rate', 'rank', 'n_epochs', 'batch_size'] as const
  ).entries()) {
    const range = search[name]
    if (!range) continue
    const u = uniform(seed, i, axis)
    point[name] =
      'values' in range
        ? range.values[Math.floor(u * range.values.length)]!
        : Number((range.min * (range.max / range.min) ** u).toPrecision(3))
  }
  return point
}

/** The points of all trials: as many as the budget allows at worst, none twice. */
export function choosePoints(
  search: Search,
  { seed, size, budget, max }: { seed: number; size: Size; budget: number; max: number },
): Point[] {
  const points: Point[] = [{}]
  const known = new Set([JSON.stringify({})])
  // A small space runs out of new points before the draws do.
  for (let i = 1; points.length < max && i < 20 * max; i++) {
    const point = pointAt(search, seed, i)
    const name = JSON.stringify(point)
    if (known.has(name)) continue
    known.add(name)
    const steps = [...points, point].map((each) => stepsOf(each, size))
    if (greatestCost(steps) <= budget) points.push(point)
  }
  return points
}

/** Which of the trials that are still in go on, by their losses: indices, the best first. Ties go to the earlier. */
export function goOn(losses: readonly number[], trials: number, rung: number): number[] {
  const ordered = [...losses.keys()].sort((a, b) => {
    const [x, y] = [losses[a]!, losses[b]!]
    return (Number.isFinite(x) ? x : Infinity) - (Number.isFinite(y) ? y : Infinity) || a - b
  })
  return ordered.slice(0, survivors(trials, rung + 1))
}
