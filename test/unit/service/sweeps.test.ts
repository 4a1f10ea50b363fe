import { expect, test } from 'vitest'
import {
  choosePoints,
  goOn,
  greatestCost,
  pointAt,
  SHARES,
  stepsOf,
} from '../../../src/service/sweeps/halving.ts'

const search = {
  learning_rate: { min: 1e-5, max: 1e-2 },
  rank: { values: [4, 8, 16] },
  n_epochs: { values: [1, 2, 4] },
  batch_size: { values: [4, 8] },
}
const size = { rows: 64, n_epochs: 2, batch_size: 8 }

test('eight trials of one size cost four, and no order of losses costs more than was reckoned', () => {
  expect(SHARES).toEqual([0.25, 0.5])
  expect(greatestCost(Array(8).fill(100))).toBe(400)
  const steps = [16, 64, 8, 40, 100, 3, 7]
  for (let seed = 0; seed < 50; seed++) {
    const at = (i: number) => ((i + 1) * 7919 * (seed + 1)) % 101
    let left = [...steps.keys()]
    let cost = 0
    for (let rung = 0; rung <= SHARES.length; rung++) {
      const from = rung === 0 ? 0 : SHARES[rung - 1]!
      for (const i of left)
        cost += Math.ceil((SHARES[rung] ?? 1) * steps[i]!) - Math.ceil(from * steps[i]!)
      left = goOn(left.map(at), steps.length, rung).map((i) => left[i]!)
    }
    expect(cost).toBeLessThanOrEqual(greatestCost(steps))
  }
})

test('points lie in their ranges, differ, and are the same for one seed', () => {
  const points = Array.from({ length: 200 }, (_, i) => pointAt(search, 5, i + 1))
  for (const { learning_rate, rank, n_epochs, batch_size } of points) {
    expect(learning_rate).toBeGreaterThanOrEqual(1e-5)
    expect(learning_rate).toBeLessThanOrEqual(1e-2)
    expect([search.rank.values, search.n_epochs.values, search.batch_size.values]).toEqual([
      expect.arrayContaining([rank]),
      expect.arrayContaining([n_epochs]),
      expect.arrayContaining([batch_size]),
    ])
  }
  // On a logarithmic scale half of them lie below the geometric mean.
  const low = points.filter(({ learning_rate }) => learning_rate! < 10 ** -3.5)
  expect(low.length).toBeGreaterThan(75)
  expect(low.length).toBeLessThan(125)
  expect(pointAt(search, 5, 3)).toEqual(pointAt(search, 5, 3))
  expect(pointAt(search, 6, 3)).not.toEqual(pointAt(search, 5, 3))
  expect(pointAt(search, 5, 0)).toEqual({})
})

test('there are as many trials as the budget allows, and no point twice', () => {
  const options = { seed: 1, size, budget: 64, max: 16 }
  const points = choosePoints(search, options)
  expect(points[0]).toEqual({})
  expect(points.length).toBeGreaterThan(3)
  expect(greatestCost(points.map((point) => stepsOf(point, size)))).toBeLessThanOrEqual(64)
  expect(choosePoints(search, { ...options, budget: 1 })).toHaveLength(1)
  expect(choosePoints({ rank: { values: [4, 8] } }, { ...options, budget: 1e6 })).toHaveLength(3)
  expect(choosePoints(search, { ...options, budget: 1e6 })).toHaveLength(16)
})

test('the best half goes on, two to the end, and what has no loss comes last', () => {
  expect(goOn([3, 1, 2, 4, 5, 6, 7, 8], 8, 0)).toEqual([1, 2, 0, 3])
  expect(goOn([3, 1, 2, 4], 8, 1)).toEqual([1, 2])
  expect(goOn([Number.NaN, 1, 1], 3, 0)).toEqual([1, 2])
})
