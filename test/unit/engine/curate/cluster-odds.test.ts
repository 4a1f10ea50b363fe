import { expect, test } from 'vitest'
import { clusterOdds } from '../../../../src/engine/curate/cluster-odds.ts'
import { uniform } from '../../../../src/engine/random.ts'

test('rows of a group that training lacks have high odds, and the row itself is not counted', async () => {
  // Five directions with 150 rows each near them; training has none of the last.
  const [groups, each, size] = [5, 150, 16]
  const rows = groups * each
  const vectors = new Float32Array(rows * size)
  const labels = new Uint8Array(rows)
  for (let row = 0; row < rows; row++) {
    const group = row % groups
    const own = vectors.subarray(row * size, (row + 1) * size)
    for (let k = 0; k < size; k++) own[k] = (k === group ? 1 : 0) + 0.2 * (uniform(1, row, k) - 0.5)
    const norm = Math.hypot(...own)
    for (let k = 0; k < size; k++) own[k]! /= norm
    labels[row] = group === groups - 1 || uniform(2, row, 0) < 0.4 ? 1 : 0
  }
  const folds = Uint8Array.from(labels, (_, row) => Math.floor(row / groups) % 5)
  const odds = await clusterOdds({ vectors, size, rows }, { labels, folds, count: 5 })
  const of = (keep: (group: number) => boolean) => [...odds].filter((_, row) => keep(row % groups))
  expect(Math.min(...of((group) => group === groups - 1))).toBeGreaterThan(1)
  expect(Math.max(...of((group) => group < groups - 1))).toBeLessThan(1)
  // What a row's own file says of its group counts for other folds alone, so no row speaks for itself.
  const mean = (label: number) => {
    const some = [...odds].filter((_, row) => row % groups < groups - 1 && labels[row] === label)
    return some.reduce((sum, one) => sum + one, 0) / some.length
  }
  expect(mean(1)).toBeLessThanOrEqual(mean(0))
})
