import { expect, test } from 'vitest'
import { gradients } from '../../../../src/engine/graph/autodiff.ts'
import { input, reach, type Value } from '../../../../src/engine/graph/graph.ts'
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

test('a product adds the other gradients of its input as it goes', async () => {
  const twoWays = (x: Value, a: Value, b: Value) =>
    op.add(op.mul(op.sigmoid(x), b), op.linear(x, a))
  await expectGradient(twoWays, [
    [2, 3],
    [3, 3],
    [2, 3],
  ])
  const [x, a, b] = [
    [2, 3],
    [3, 3],
    [2, 3],
  ].map((dims, i) => input(`x${i}`, 'float32', dims))
  const [dx] = gradients(op.sumAll(twoWays(x!, a!, b!)), [x!])
  const { nodes } = reach([dx!])
  expect(nodes.filter((n) => n.op === 'Gemm').map((n) => n.inputs.length)).toEqual([3])
  expect(nodes.filter((n) => n.op === 'Add')).toEqual([])
})

test('an operator without a gradient is named, and an input that does not matter too', () => {
  const x = input('x', 'float32', [2])
  const other = input('other', 'float32', [2])
  const y = op.sumAll(x)
  expect(() => gradients(y, [other])).toThrow('autodiff: input 0 does not reach the output')
  const noWay = op.sumAll(op.gather(x, input('i', 'int64', [1, 2])))
  expect(() => gradients(noWay, [x])).toThrow('Gather goes back for a vector of rows')
})
