import { expect, test } from 'vitest'
import {
  type Embedded,
  infoNce,
  meanReciprocalRank,
} from '../../../../../src/engine/train/methods/contrast.ts'
import { randomTensor } from '../../../../support/gradient.ts'

const D = 3
const embedded: Embedded = {
  vectors: randomTensor([7, D], 4).data,
  width: D,
  anchors: [0, 2, 5],
  positives: [1, 3, 6],
  negatives: [4],
}

test('the gradient meets finite differences', () => {
  const { gradient } = infoNce(embedded, 0.5)
  const loss = (at: number, by: number) => {
    const vectors = embedded.vectors.slice()
    vectors[at]! += by
    return infoNce({ ...embedded, vectors }, 0.5).loss
  }
  for (let i = 0; i < gradient.length; i++)
    expect(gradient[i]).toBeCloseTo((loss(i, 1e-3) - loss(i, -1e-3)) / 2e-3, 3)
})

test('alike texts all around are a guess among the candidates', () => {
  const vectors = new Float32Array(7 * D).fill(1)
  expect(infoNce({ ...embedded, vectors }, 0.05).loss).toBeCloseTo(Math.log(4), 6)
})

test('ranks beyond the tenth count nothing, and a tie goes to the other', () => {
  const one = (x: number) => [x, Math.sqrt(1 - x * x)]
  const anchors = [0]
  const own = one(0.5)
  const row = (others: number[][]): Embedded => ({
    vectors: Float32Array.from([one(1), own, ...others].flat()),
    width: 2,
    anchors,
    positives: [1],
    negatives: others.map((_, i) => i + 2),
  })
  expect(meanReciprocalRank(row([one(0.1)]))).toBe(1)
  expect(meanReciprocalRank(row([one(0.9), one(0.8)]))).toBeCloseTo(1 / 3, 12)
  expect(meanReciprocalRank(row([own]))).toBe(0.5)
  expect(meanReciprocalRank(row(Array.from({ length: 10 }, () => one(0.9))))).toBe(0)
})
