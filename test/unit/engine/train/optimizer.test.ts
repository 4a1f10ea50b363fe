import { expect, test } from 'vitest'
import { adamW, clipByNorm, createMoments } from '../../../../src/engine/train/optimizer.ts'

test('adamW: the first update is the learning rate against the gradient, plus decay', () => {
  const parameters = Float32Array.of(1, -2, 0.5)
  const gradient = Float32Array.of(0.3, -0.1, 0)
  adamW(parameters, gradient, createMoments(3), { step: 1, learningRate: 0.1, weightDecay: 0.01 })
  // m̂ / √v̂ is the gradient's sign on the first step.
  expect([...parameters]).toEqual([
    expect.closeTo(1 * 0.999 - 0.1, 6),
    expect.closeTo(-2 * 0.999 + 0.1, 6),
    expect.closeTo(0.5 * 0.999, 6),
  ])
})

test('clipByNorm: returns the norm, and scales only what is longer', () => {
  const long = Float32Array.of(3, 4)
  expect(clipByNorm(long, 1)).toBeCloseTo(5, 6)
  expect(Math.hypot(...long)).toBeCloseTo(1, 5)
  const short = Float32Array.of(0.3, 0.4)
  clipByNorm(short, 1)
  expect([...short]).toEqual([expect.closeTo(0.3, 6), expect.closeTo(0.4, 6)])
})
