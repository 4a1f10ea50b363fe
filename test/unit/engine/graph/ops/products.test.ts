import { expect, test } from 'vitest'
import { input } from '../../../../../src/engine/graph/graph.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { expectGradient } from '../../../../support/gradient.ts'

test.each([
  ['2-D', [2, 3], [3, 4]],
  ['batched', [2, 2, 3], [2, 3, 4]],
  ['weight broadcast over the batch', [2, 2, 3], [3, 4]],
])('matmul: gradient meets finite differences (%s)', (_, a, b) => expectGradient(op.matmul, [a, b]))

test.each([
  [false, true, [2, 2, 3], [2, 4, 3]],
  [true, false, [2, 3, 2], [2, 3, 4]],
  [true, true, [2, 3, 2], [1, 4, 3]],
])(
  'batchedGemm: gradient meets finite differences (transA %s, transB %s)',
  (transA, transB, a, b) =>
    expectGradient((x, y) => op.batchedGemm(x, y, { transA, transB, alpha: 0.5 }), [a, b]),
)

test.each([
  [false, false, [2, 3], [3, 4]],
  [false, true, [2, 3], [4, 3]],
  [true, false, [3, 2], [3, 4]],
  [true, true, [3, 2], [4, 3]],
])('gemm: gradient meets finite differences (transA %s, transB %s)', (transA, transB, a, b) =>
  expectGradient((x, y, c) => op.gemm(x, y, { transA, transB, alpha: 0.5, c }), [a, b, [2, 4]]),
)

test.each([
  [false, [2, 1]],
  [true, [1, 2]],
])('gemm: a tall matrix gets its gradient through the transpose (transA %s)', (transA, a) =>
  expectGradient((x, y) => op.gemm(x, y, { transA, transB: true, alpha: 0.5 }), [a, [128, 1]]),
)

test('products of shapes that do not meet are refused with both shapes', () => {
  const a = input('a', 'float32', [2, 3])
  const b = input('b', 'float32', [4, 5])
  expect(() => op.matmul(a, b)).toThrow('MatMul: inner dims differ, [2,3] · [4,5]')
  expect(() => op.linear(a, b)).toThrow('Gemm: inner dims differ, [2,3] · [4,5]ᵀ')
})
