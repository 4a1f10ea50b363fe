import { expect, test } from 'vitest'
import { constant, input, type Value } from '../../../../../src/engine/graph/graph.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { float32 } from '../../../../../src/engine/tensor.ts'
import { expectGradient } from '../../../../support/gradient.ts'

const binaries: Record<string, (a: Value, b: Value) => Value> = {
  add: op.add,
  sub: op.sub,
  mul: op.mul,
  div: op.div,
}

test.each(Object.keys(binaries))('%s: gradient meets finite differences', (name) =>
  expectGradient(
    binaries[name]!,
    [
      [2, 3],
      [2, 3],
    ],
    { range: [0.5, 2] },
  ),
)

test.each([
  ['a row over a matrix', [4, 3], [3]],
  ['a column over a matrix', [4, 3], [4, 1]],
  ['a scalar over a matrix', [2, 3], []],
  ['both ways', [4, 1], [1, 3]],
])('mul: gradient sums over what was broadcast (%s)', (_, a, b) => expectGradient(op.mul, [a, b]))

const unaries: Record<string, (x: Value) => Value> = {
  neg: op.neg,
  exp: op.exp,
  log: op.log,
  sqrt: op.sqrt,
  sigmoid: op.sigmoid,
  softplus: op.softplus,
  tanh: op.tanh,
  erf: op.erf,
}

test.each(Object.keys(unaries))('%s: gradient meets finite differences', (name) =>
  expectGradient(unaries[name]!, [[2, 3]], { range: [0.5, 2] }),
)

test('where: each side gets the gradient of the places it gave', () =>
  expectGradient(
    (a, b) => {
      const first = constant(float32([2, 2], Float32Array.of(1, 0, 0, 1)))
      return op.where(op.greater(first, constant(float32([], Float32Array.of(0.5)))), a, b)
    },
    [
      [2, 2],
      [2, 2],
    ],
  ))

test('shapes that do not broadcast are named', () => {
  const a = input('a', 'float32', [2, 3])
  const b = input('b', 'float32', [2, 4])
  expect(() => op.add(a, b)).toThrow('shapes do not broadcast: [2,3] and [2,4], 3 against 4')
})

test('relu: gradient meets finite differences on both sides of 0, away from it', async () => {
  const shifted = (by: number) => (x: Value) =>
    op.relu(op.add(x, constant(float32([], Float32Array.of(by)))))
  await expectGradient(shifted(0), [[2, 3]], { range: [0.5, 2] })
  await expectGradient(shifted(-5), [[2, 3]], { range: [0.5, 2] })
})
