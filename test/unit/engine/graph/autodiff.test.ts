import { expect, test } from 'vitest'
import { gradients } from '../../../../src/engine/graph/autodiff.ts'
import { input, reach } from '../../../../src/engine/graph/graph.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { expectGradient } from '../../../support/gradient.ts'

test('a value used twice gets the sum of both gradients', () =>
  expectGradient((x) => op.add(op.mul(x, x), op.sigmoid(x)), [[2, 3]]))

test('nothing is computed for inputs that are not asked for', () => {
  const x = input('x', 'float32', [2, 3])
  const frozen = input('frozen', 'float32', [4, 3])
  const [dx] = gradients(op.sumAll(op.linear(x, frozen)), [x])
  const gemms = reach([dx!]).nodes.filter((n) => n.op === 'Gemm')
  expect(gemms).toHaveLength(1)
})

test('slices that cover a value send their gradients back as one Concat', async () => {
  await expectGradient((x) => op.mul(op.slice(x, 1, 0, 2), op.slice(x, 1, 2, 4)), [[2, 4]])
  const x = input('x', 'float32', [2, 4])
  const y = op.mul(op.slice(x, 1, 0, 2), op.slice(x, 1, 2, 4))
  const [dx] = gradients(op.sumAll(y), [x])
  expect(reach([dx!]).nodes.filter((n) => n.op === 'Pad')).toEqual([])
})

test('slices that overlap or leave a gap are added', () =>
  expectGradient((x) => op.mul(op.slice(x, 1, 0, 3), op.slice(x, 1, 2, 5)), [[2, 6]]))

test('an operator without a gradient is named, and an input that does not matter too', () => {
  const x = input('x', 'float32', [2])
  const other = input('other', 'float32', [2])
  const y = op.sumAll(x)
  expect(() => gradients(y, [other])).toThrow('autodiff: input 0 does not reach the output')
  const noWay = op.sumAll(op.gather(x, input('i', 'int64', [1, 2])))
  expect(() => gradients(noWay, [x])).toThrow('Gather goes back for a vector of rows')
})
