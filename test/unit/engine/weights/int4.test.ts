import { expect, test } from 'vitest'
import { BLOCK, quantise4, quantise8 } from '../../../../src/engine/weights/int4.ts'
import { randomTensor } from '../../../support/gradient.ts'

const nibble = (bytes: Uint8Array, i: number) => (bytes[i >> 1]! >> (4 * (i & 1))) & 15

function restore4(q: ReturnType<typeof quantise4>, out: number, inner: number): number[] {
  const count = inner / BLOCK
  return Array.from({ length: out * inner }, (_, i) => {
    const block = Math.floor(i / BLOCK)
    const [o, b] = [Math.floor(block / count), block % count]
    return q.scale[block]! * (nibble(q.quants, i) - 8) + q.offset[b * out + o]!
  })
}

test('blocks that a file was made of come back exactly', () => {
  const [out, inner] = [6, 96]
  const matrix = new Float32Array(out * inner)
  for (let block = 0; block < matrix.length / BLOCK; block++) {
    // As Q4_1 keeps them; some use only a few of the sixteen levels.
    const [d, m] = [Math.fround(0.013 + block / 4096), Math.fround(-0.11 + block / 512)]
    const levels = [16, 5, 2, 1][block % 4]!
    for (let i = 0; i < BLOCK; i++)
      matrix[block * BLOCK + i] = Math.fround(d * (((i * 7 + block) % levels) + (16 - levels))) + m
  }
  const made = quantise4(matrix, out, inner)
  expect(made.exact).toBe(true)
  for (const [i, w] of restore4(made, out, inner).entries()) expect(w).toBeCloseTo(matrix[i]!, 6)
})

test('other weights are rounded, by half a step and little more', () => {
  const { data } = randomTensor([8, 64], 1, [-0.5, 0.5])
  const made = quantise4(data, 8, 64)
  expect(made.exact).toBe(false)
  const errors = restore4(made, 8, 64).map((w, i) => Math.abs(w - data[i]!))
  expect(Math.max(...errors)).toBeLessThan(1.1 / 15)
  expect(errors.reduce((a, b) => a + b) / errors.length).toBeLessThan(0.5 / 15)
})

test('eight bits in two halves', () => {
  const { data } = randomTensor([4, 64], 2, [-0.5, 0.5])
  const { high, low, high_scale, low_scale } = quantise8(data, 4, 64)
  for (const [i, w] of data.entries()) {
    const block = Math.floor(i / BLOCK)
    const got = high_scale[block]! * (nibble(high, i) - 8) + low_scale[block]! * nibble(low, i)
    expect(Math.abs(got - w)).toBeLessThan(0.51 / 127)
  }
})
