import { expect, test } from 'vitest'
import { learningRate } from '../../../../src/engine/train/schedule.ts'

const rates = (lr_schedule: 'linear' | 'cosine' | 'constant') =>
  Array.from({ length: 10 }, (_, i) =>
    learningRate(i + 1, { learning_rate: 1, lr_schedule, warmup_steps: 2, total_steps: 10 }),
  )

test('every schedule warms up to the peak and no step is lost', () => {
  for (const name of ['linear', 'cosine', 'constant'] as const) {
    const all = rates(name)
    expect(all.slice(0, 3)).toEqual([0.5, 1, 1])
    expect(Math.min(...all)).toBeGreaterThan(0)
  }
})

test('linear falls in equal parts, cosine by half a wave, constant stays', () => {
  expect(rates('linear').at(-1)).toBeCloseTo(1 / 8, 12)
  expect(rates('cosine')[6]).toBeCloseTo(0.5, 12)
  expect(rates('constant').at(-1)).toBe(1)
})
