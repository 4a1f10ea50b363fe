import { expect, test } from 'vitest'
import { BLOCK, quantise4, quantise8 } from '../../../../src/engine/weights/int4.ts'
import { randomTensor } from '../../../support/gradient.ts'

const nibble = (bytes: Uint8Array, i: number) => (bytes[i >> 1]! >> (4 * (i & 1))) & 15

type Int4Matrix = ReturnType<typeof quantise4>

/** Value i of block b of row o, in a matrix of so many blocks a row. */
function valueAt(q: Int4Matrix, [o, b, i]: readonly [number, number, number], blocks: number) {
  const zero = nibble(q.zeros, o * 2 * Math.ceil(blocks / 2) + b)
  return q.scale[o * blocks + b]! * (nibble(q.quants, (o * blocks + b) * BLOCK + i) - zero)
}

function restore4(q: Int4Matrix, out: number, inner: number): number[] {
  const count = inner / BLOCK
  const blocks = count + 1 // that of the rests
  return Array.from({ length: out * inner }, (_, at) => {
    const o = Math.floor(at / inner)
    const b = Math.floor((at % inner) / BLOCK)
    return valueAt(q, [o, b, at % BLOCK], blocks) + valueAt(q, [o, count, b], blocks)
  })
}

test('blocks that a file was made of come back, but for a small share of a step that all of a block have', () => {
  const [out, inner] = [6, 96]
  const matrix = new Float32Array(out * inner)
  for (let block = 0; block < matrix.length / BLOCK; block++) {
    // As Q4_1 keeps them; some use only a few of the sixteen levels.
    const [d, m] = [Math.fround(0.013 + block / 4096), Math.fround(-0.11 + block / 1024)]
    const levels = [16, 9, 6, 5][block % 4]!
    for (let i = 0; i < BLOCK; i++)
      matrix[block * BLOCK + i] =
        Math.fround(d * (((i * 7 + block) % levels) + ((16 - levels) >> 1))) + m
  }
  const made = quantise4(matrix, out, inner)
  const restored = restore4(made, out, inner)
  for (let block = 0; block < matrix.length / BLOCK; block++) {
    const off = Array.from(
      { length: BLOCK },
      (_, i) => restored[block * BLOCK + i]! - matrix[block * BLOCK + i]!,
    )
    // Half a step around the zero point, in fifteen steps of its own.
    expect(Math.max(...off.map(Math.abs))).toBeLessThan((0.013 + 18 / 4096) / 27)
    expect(Math.max(...off) - Math.min(...off)).toBeLessThan(1e-6)
  }
})

test('a block apart from zero is rounded, and costs its neighbours nothing', () => {
  const matrix = Float32Array.from({ length: 2 * BLOCK }, (_, i) =>
    i < BLOCK ? 9 + i / 64 : (i % 16) / 16 - 0.5,
  )
  const off = restore4(quantise4(matrix, 1, 2 * BLOCK), 1, 2 * BLOCK).map((w, i) => w - matrix[i]!)
  expect(Math.max(...off.slice(0, BLOCK).map(Math.abs))).toBeLessThan(0.51 * (9.5 / 15))
  expect(Math.max(...off.slice(BLOCK).map(Math.abs))).toBeLessThan(1 / 16 / 27)
})

test('a block of one value is that value', () => {
  for (const value of [0.3, -0.2, 0]) {
    const made = quantise4(new Float32Array(BLOCK).fill(value), 1, BLOCK)
    for (const w of restore4(made, 1, BLOCK)) expect(w).toBeCloseTo(value, 7)
  }
})

test('other weights are rounded, by half a step and little more', () => {
  const { data } = randomTensor([8, 64], 1, [-0.5, 0.5])
  const made = quantise4(data, 8, 64)
  const errors = restore4(made, 8, 64).map((w, i) => Math.abs(w - data[i]!))
  expect(Math.max(...errors)).toBeLessThan(1.1 / 15)
  expect(errors.reduce((a, b) => a + b) / errors.length).toBeLessThan(0.5 / 15)
})

test('eight bits in two halves', () => {
  const { data } = randomTensor([4, 64], 2, [-0.5, 0.5])
  const made = quantise8(data, 4, 64)
  for (const [at, w] of data.entries()) {
    const [o, b, i] = [Math.floor(at / 64), Math.floor((at % 64) / BLOCK), at % BLOCK]
    const got = valueAt(made, [o, b, i], 4) + valueAt(made, [o, 2 + b, i], 4)
    expect(Math.abs(got - w)).toBeLessThan(0.51 / 127)
  }
})
