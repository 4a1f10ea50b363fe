import { expect, test } from 'vitest'
import { gradients } from '../../../../../src/engine/graph/autodiff.ts'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { expectGradient, randomTensor } from '../../../../support/gradient.ts'

const OUT = 5
const IN = 4
const R = 2
const weight = input('w', 'float32', [OUT, IN])
const a = input('a', 'float32', [R, IN])
const b = input('b', 'float32', [OUT, R])

test('rowLengths: the lengths of the rows of W + s·B·A, without making it', async () => {
  const feeds = {
    w: randomTensor([OUT, IN], 1),
    a: randomTensor([R, IN], 2),
    b: randomTensor([OUT, R], 3),
  }
  const onnx = encodeOnnx({ lengths: op.rowLengths(weight, a, b, 0.5) })
  await using session = await createSession(onnx, { threads: 1 })
  const { lengths } = await session.run(feeds)
  const [w, A, B] = [feeds.w.data, feeds.a.data, feeds.b.data]
  const want = Array.from({ length: OUT }, (_, o) =>
    Math.hypot(
      ...Array.from({ length: IN }, (_, i) => {
        const update = Array.from({ length: R }, (_, r) => B[o * R + r]! * A[r * IN + i]!)
        return w[o * IN + i]! + 0.5 * update.reduce((x, y) => x + y)
      }),
    ),
  )
  expect(lengths!.dims).toEqual([1, OUT])
  for (const [o, length] of want.entries())
    expect(Number(lengths!.data[o]), `row ${o}`).toBeCloseTo(length, 5)
})

test('gainOf: the gradient of magnitudes meets finite differences', () => {
  const lengths = constant(randomTensor([1, OUT], 4, [0.5, 2]))
  return expectGradient((magnitude) => op.gainOf(magnitude, lengths), [[1, OUT]])
})

test('gainOf: no gradient goes through the lengths', () => {
  const m = input('m', 'float32', [1, OUT])
  const gain = op.gainOf(m, op.rowLengths(weight, a, b, 0.5))
  expect(() => gradients(op.sumAll(gain), [a])).toThrow('does not reach the output')
})
