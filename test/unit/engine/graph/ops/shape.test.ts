import { expect, test } from 'vitest'
import { gradients } from '../../../../../src/engine/graph/autodiff.ts'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
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

test('pick: rows by an index that names none twice', () =>
  expectGradient((x) => op.pick(x, constant(int64([2], [2, 0]))), [[3, 2]]))

test('gather: with several threads too, no copy of a row is lost on the way back', async () => {
  // Large enough that the runtime shares it out among its threads.
  const [N, D, V] = [4096, 768, 3]
  const x = input('x', 'float32', [V, D])
  const index = input('index', 'int64', [N])
  const [dx] = gradients(op.sumAll(op.gather(x, index)), [x])
  await using session = await createSession(encodeOnnx({ dx: dx! }), { threads: 2 })
  const feeds = {
    index: int64(
      [N],
      Int32Array.from({ length: N }, (_, i) => i % V),
    ),
  }
  for (let i = 0; i < 10; i++) {
    const { data } = (await session.run(feeds)).dx!
    const counted = Array.from({ length: V }, (_, row) => Math.ceil((N - row) / V))
    expect([...data]).toEqual(counted.flatMap((count) => new Array(D).fill(count)))
  }
})

test('slices outside their axis are refused', () => {
  const x = input('x', 'float32', [2, 4])
  expect(() => op.slice(x, 1, 2, 5)).toThrow('Slice: 2:5 is outside axis 1 of [2,4]')
})
