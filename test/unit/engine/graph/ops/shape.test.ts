import { expect, test } from 'vitest'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { int64 } from '../../../../../src/engine/tensor.ts'
import { expectGradient } from '../../../../support/gradient.ts'

test('reshape and transpose: gradients meet finite differences', () =>
  expectGradient((x) => op.transpose(op.reshape(x, [2, 3, 2]), [2, 0, 1]), [[4, 3]]))

test('slice: the gradient is zero outside', () =>
  expectGradient((x) => op.slice(x, 1, 1, 3), [[2, 4]]))

test('pad: the gradient leaves the margin out', () =>
  expectGradient((x) => op.pad(x, 0, 1, 2), [[2, 3]]))

test('concat: each part gets its piece', () =>
  expectGradient(
    (a, b) => op.concat([a, b, a], 1),
    [
      [2, 2],
      [2, 3],
    ],
  ))

test('gather: a row taken twice gets both gradients', () =>
  expectGradient((x) => op.gather(x, constant(int64([3], [2, 0, 2]))), [[3, 2]]))

test('slices outside their axis are refused', () => {
  const x = input('x', 'float32', [2, 4])
  expect(() => op.slice(x, 1, 2, 5)).toThrow('Slice: 2:5 is outside axis 1 of [2,4]')
})
