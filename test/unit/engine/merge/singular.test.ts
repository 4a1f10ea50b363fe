// The largest singular values against matrices that were made of known ones.

import { expect, test } from 'vitest'
import { largestSingular } from '../../../../src/engine/merge/singular.ts'
import { normal } from '../../../../src/engine/random.ts'

const gaussian = (seed: number, count: number) =>
  Float64Array.from({ length: count }, (_, i) => normal(seed, 0, i))

/** Orthonormal rows [count, width] by Gram and Schmidt. */
function orthonormal(seed: number, count: number, width: number): Float64Array[] {
  const rows: Float64Array[] = []
  for (let i = 0; i < count; i++) {
    const row = gaussian(seed + i, width)
    for (let pass = 0; pass < 2; pass++)
      for (const other of rows) {
        const along = row.reduce((sum, x, k) => sum + x * other[k]!, 0)
        for (let k = 0; k < width; k++) row[k]! -= along * other[k]!
      }
    const length = Math.hypot(...row)
    rows.push(row.map((x) => x / length))
  }
  return rows
}

function made(values: readonly number[], out: number, inner: number) {
  const left = orthonormal(100, values.length, out)
  const right = orthonormal(9000, values.length, inner)
  const sum = (count: number) => {
    const matrix = new Float64Array(out * inner)
    for (let k = 0; k < count; k++)
      for (let o = 0; o < out; o++)
        for (let i = 0; i < inner; i++)
          matrix[o * inner + i]! += values[k]! * left[k]![o]! * right[k]![i]!
    return matrix
  }
  return { matrix: Float32Array.from(sum(values.length)), sum }
}

test.each([
  ['wide, slowly falling', Array.from({ length: 40 }, (_, k) => 1 / (k + 1)), 40, 90],
  ['tall, with equal values', [3, 2, 2, 1, 1, 1, 0.5], 60, 7],
  ['of a lower rank than is asked for', [5, 0.01], 30, 20],
  ['a flat tail', [4, 3, ...Array(48).fill(0.1)], 50, 50],
  ['one column', [2], 12, 1],
])('%s', (_, values, out, inner) => {
  const { matrix, sum } = made(values, out, inner)
  const wanted = Math.min(2, values.length)
  for (const rank of [wanted, 6].map((n) => Math.min(n, values.length, 6))) {
    const found = largestSingular(matrix, { out, inner, rank })
    for (let k = 0; k < rank; k++)
      expect(Math.abs(found.values[k]! - values[k]!)).toBeLessThan(2e-7 * values[0]!)
    // Where a value goes on beyond the last, which of its vectors are kept is nobody's.
    if (values[rank] === values[rank - 1]) continue
    const expected = sum(rank)
    let off = 0
    for (let o = 0; o < out; o++)
      for (let i = 0; i < inner; i++) {
        let x = 0
        for (let k = 0; k < found.values.length; k++)
          x += found.values[k]! * found.left[k]![o]! * found.right[k]![i]!
        off = Math.max(off, Math.abs(x - expected[o * inner + i]!))
      }
    expect(off).toBeLessThan(1e-6 * values[0]!)
  }
})

test('of nothing there is nothing', () => {
  const found = largestSingular(new Float32Array(12), { out: 3, inner: 4, rank: 2 })
  expect(found.values).toEqual([])
})

test('asked for more than there is, what is not there is left out', () => {
  const { matrix } = made([5, 0.5], 30, 20)
  const { values } = largestSingular(matrix, { out: 30, inner: 20, rank: 8 })
  expect(values[0]).toBeCloseTo(5, 5)
  expect(values[2] ?? 0).toBeLessThan(1e-5)
})
