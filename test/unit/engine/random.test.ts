import { expect, test } from 'vitest'
import { philox, uniform } from '../../../src/engine/random.ts'

// Known answers that the authors of Philox publish with Random123 (kat_vectors, philox4x32 10).
test.each([
  ['zeros', [0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
  [
    'ones',
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    'digits of pi',
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
] as [string, [number, number, number, number], [number, number], number[]][])(
  'philox gives its published words (%s)',
  (_, counter, key, words) => {
    expect(philox(counter, key)).toEqual(words)
  },
)

test('every seed, choice and position has a number of its own in [0, 1)', () => {
  const seeds = [0, 1, -1, 2 ** 31, 2 ** 32, -(2 ** 32), 2 ** 53 - 1, -(2 ** 63), 2 ** 62]
  const numbers = seeds.flatMap((seed) =>
    [0, 1, 2].flatMap((choice) => [0, 1, 2, 4096].map((at) => uniform(seed, choice, at))),
  )
  expect(new Set(numbers).size).toBe(numbers.length)
  expect(numbers.every((number) => number >= 0 && number < 1)).toBe(true)
})

test('the numbers are even: mean, spread and each tenth are where they belong', () => {
  const count = 20_000
  const tenths = new Array<number>(10).fill(0)
  let sum = 0
  for (let i = 0; i < count; i++) {
    const u = uniform(7, 0, i)
    sum += u
    tenths[Math.floor(u * 10)]! += 1
  }
  // Five standard deviations: 0.289 / sqrt(n) for the mean, sqrt(n · 0.1 · 0.9) for a tenth.
  expect(Math.abs(sum / count - 0.5)).toBeLessThan(5 * (0.289 / Math.sqrt(count)))
  for (const tenth of tenths) expect(Math.abs(tenth - count / 10)).toBeLessThan(5 * 42.5)
})
