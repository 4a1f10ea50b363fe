// The search among points: it finds a minimum, keeps inside its box, and tries the same points again.

import { expect, test } from 'vitest'
import { evolve, type Tried } from '../../../../src/engine/merge/evolution.ts'

const box = { low: [0, 0, 0.1], high: [1.5, 1.5, 1] }
const start = [0.5, 0.5, 0.9]

async function run(
  lossOf: (point: readonly number[]) => number,
  { budget = 60, seed = 1, from = start } = {},
) {
  const tried: Tried[] = []
  for await (const one of evolve({ box, start: from, budget, seed }, async (p) => lossOf(p)))
    tried.push(one)
  return tried
}

const bowl = (point: readonly number[]) =>
  (point[0]! - 1.2) ** 2 + (point[1]! - 0.3) ** 2 + (point[2]! - 0.4) ** 2

test.each([1, 2, 3, 4, 5])(
  'finds the bottom of a bowl in 60 candidates (seed %i)',
  async (seed) => {
    const tried = await run(bowl, { seed })
    expect(tried).toHaveLength(60)
    expect(tried[0]!.point).toEqual(start)
    expect(tried.filter(({ best }) => best).at(-1)!.loss).toBeLessThan(0.02)
    expect(await run(bowl, { seed })).toEqual(tried)
  },
)

test('keeps inside the box, where the best lies on its edge too', async () => {
  const tried = await run(([x]) => -x!)
  for (const { point } of tried)
    for (const [i, x] of point.entries()) {
      expect(x).toBeGreaterThanOrEqual(box.low[i]!)
      expect(x).toBeLessThanOrEqual(box.high[i]!)
    }
  expect(tried.filter(({ best }) => best).at(-1)!.point[0]).toBeGreaterThan(1.45)
})

test('what is no number is never the best', async () => {
  const tried = await run(([x]) => (x! > 0.6 ? Number.NaN : -x!))
  expect(tried.filter(({ best }) => best).at(-1)!.point[0]).toBeLessThanOrEqual(0.6)
})
