// A search among points of a box: one parent, one child, and steps that grow while children are better
// ((1+1)-ES with the one-fifth rule; Beyer & Schwefel, "Evolution strategies", 2002). Knows numbers only.

import { normal } from '../random.ts'

export interface Box {
  readonly low: readonly number[]
  readonly high: readonly number[]
}

export interface Tried {
  /** From 1. */
  readonly candidate: number
  readonly point: readonly number[]
  readonly loss: number
  /** Whether none before was better. */
  readonly best: boolean
}

/** The first step, of each side of the box. */
const STEP = 0.25
const GROW = 1.5

/** Tries `budget` points, the first of them `start`; the same arguments try the same points. What is no number is worst. */
export async function* evolve(
  {
    box,
    start,
    budget,
    seed,
  }: { box: Box; start: readonly number[]; budget: number; seed: number },
  lossOf: (point: readonly number[], candidate: number) => Promise<number>,
): AsyncGenerator<Tried, void, undefined> {
  const side = (i: number) => box.high[i]! - box.low[i]!
  let parent: { point: readonly number[]; loss: number } | undefined
  let step = STEP
  for (let candidate = 1; candidate <= budget; candidate++) {
    const point: readonly number[] = parent
      ? parent.point.map((x, i) =>
          reflect(x + step * side(i) * normal(seed, candidate, i), box.low[i]!, box.high[i]!),
        )
      : start
    const found = await lossOf(point, candidate)
    const loss = Number.isFinite(found) ? found : Number.POSITIVE_INFINITY
    const best = !parent || loss < parent.loss
    // In balance where one child of five is better.
    if (parent) step = Math.min(0.5, step * (best ? GROW : GROW ** -0.25))
    if (best) parent = { point, loss }
    yield { candidate, point, loss, best }
  }
}

/** What steps over an edge comes back as far as it went. */
function reflect(x: number, low: number, high: number): number {
  if (high <= low) return low
  const period = 2 * (high - low)
  const at = (((x - low) % period) + period) % period
  return low + (at > high - low ? period - at : at)
}
