import { expect, test } from 'vitest'
import { adamW, clipping, createMoments } from '../../../../src/engine/train/optimizer.ts'

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

test('clipping: the norm, and a factor below 1 only for what is longer', () => {
  const long = clipping(Float32Array.of(3, 4), 1)
  expect(long).toEqual({ norm: 5, clip: expect.closeTo(0.2, 6) })
  expect(clipping(Float32Array.of(0.3, 0.4), 1).clip).toBe(1)
})

test('adamW: a clipped gradient is learned as the shorter one', () => {
  const learned = (gradient: number[], clip: number) => {
    const [parameters, moments] = [Float32Array.of(1, -2), createMoments(2)]
    const options = { step: 1, learningRate: 0.1, weightDecay: 0, clip }
    adamW(parameters, Float32Array.from(gradient), moments, options)
    return [...parameters, ...moments.first, ...moments.second]
  }
  expect(learned([3, 4], 0.5)).toEqual(learned([1.5, 2], 1))
})
