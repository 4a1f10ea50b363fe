// The random merge methods over 200 seeds beside mergekit's over 200 (test/golden/merge_random.py): the same keep rate,
// of all elements and of each rank among them, and the same expectation. That equal draws give equal results is
// merge.test.ts's to show.

import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { drawing } from '../../src/engine/merge/draws.ts'
import { mergeWhole } from '../../src/engine/merge/method.ts'
import { MERGE_METHODS } from '../../src/engine/merge/methods.ts'
import { drawAt, keepByRank, keepRandom, sparsify } from '../../src/engine/merge/sparsify.ts'
import { readSafetensorsHeader } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'

const FIXTURE = fileURLToPath(new URL('./fixtures/merge-random.safetensors', import.meta.url))
const SEEDS = 200
const DIMS = [16, 32] as const
const COUNT = 512
// The same in merge_random.py.
const INPUTS = [
  { weight: 0.7, density: 0.6, epsilon: 0.15 },
  { weight: 0.4, density: 0.3, epsilon: 0.15 },
]

const { tensors } = await readSafetensorsHeader(FIXTURE)
const theirs = (name: string) => readTensor(tensors.get(name)!)
const [base, one, two] = await Promise.all(['base', 'one', 'two'].map(theirs))

describe.each(['dare_linear', 'dare_ties', 'della', 'della_linear'])('%s', (name) => {
  const method = MERGE_METHODS.get(name)!
  const merged = (seed: number) =>
    mergeWhole(
      method,
      {
        name: 'w',
        dims: DIMS,
        inputs: [
          { isBase: true, parameters: {} },
          ...INPUTS.map((parameters) => ({ isBase: false, parameters })),
        ],
        parameters: Object.fromEntries(
          Object.entries(method.parameters)
            .filter(([, spec]) => spec.of === 'merge')
            .map(([key, spec]) => [key, spec.default ?? null]),
        ),
        random: drawing(seed, 'w'),
      },
      [base!, one!, two!],
    )

  test('has the expectation and the spread of mergekit, element by element', async () => {
    const [mean, variance] = [await theirs(`${name}.mean`), await theirs(`${name}.variance`)]
    const sum = new Float64Array(COUNT)
    const squares = new Float64Array(COUNT)
    for (let seed = 0; seed < SEEDS; seed++)
      for (const [k, x] of merged(seed).entries()) {
        sum[k]! += x - mean[k]!
        squares[k]! += (x - mean[k]!) ** 2
      }
    let [ours, all, worst, chi] = [0, 0, 0, 0]
    for (let k = 0; k < COUNT; k++) {
      const off = sum[k]! / SEEDS
      const own = (squares[k]! - SEEDS * off * off) / (SEEDS - 1)
      const z = Math.abs(off) / Math.sqrt((own + variance[k]!) / SEEDS + 1e-12)
      worst = Math.max(worst, z)
      chi += (z * z) / COUNT
      ours += own
      all += variance[k]!
    }
    // Two means of 200 differ by their standard error: 512 of them by 4.9 of it at most in 999 of 1,000 cases, and
    // in the mean of squares by 1 ± 0.2.
    expect(worst).toBeLessThan(4.9)
    expect(chi).toBeGreaterThan(0.7)
    expect(chi).toBeLessThan(1.3)
    expect(ours / all).toBeGreaterThan(0.95)
    expect(ours / all).toBeLessThan(1.05)
  })

  test('keeps as much as mergekit, of the smallest and of the largest', async () => {
    const kept = await theirs(`${name}.kept`)
    for (const [i, { density, epsilon }] of INPUTS.entries()) {
      const delta = [one!, two!][i]!.map((x, k) => x - base![k]!)
      const counts = new Float64Array(COUNT)
      for (let seed = 0; seed < SEEDS; seed++) {
        const left = delta.slice()
        const draw = drawAt(drawing(seed, 'w'), i)
        if (name.startsWith('dare')) sparsify(left, keepRandom(density, draw))
        else sparsify(left, keepByRank({ dims: DIMS, density, epsilon }, draw))
        for (let k = 0; k < COUNT; k++) if (left[k] !== 0) counts[k]!++
      }
      const place = ranksInRows(delta)
      for (const part of [0, 1, 2, 3]) {
        const isIn = (k: number) => Math.floor(place[k]! / 8) === part
        const rate = (of: ArrayLike<number>, from: number) => {
          let sum = 0
          for (let k = 0; k < COUNT; k++) if (isIn(k)) sum += of[from + k]!
          return sum / (SEEDS * (COUNT / 4))
        }
        // 25,600 draws on each side: a standard error of 0.0044 between the two.
        expect(Math.abs(rate(counts, 0) - rate(kept, i * COUNT)), `${i}/${part}`).toBeLessThan(
          0.015,
        )
      }
    }
  })
})

/** The rank of each magnitude in its row, from 0. */
function ranksInRows(delta: Float32Array): Float64Array {
  const [, width] = DIMS
  const ranks = new Float64Array(delta.length)
  for (let row = 0; row < delta.length; row += width) {
    const order = Array.from({ length: width }, (_, i) => i).sort(
      (a, b) => Math.abs(delta[row + a]!) - Math.abs(delta[row + b]!),
    )
    for (const [rank, i] of order.entries()) ranks[row + i] = rank
  }
  return ranks
}
