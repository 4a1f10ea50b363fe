import { expect, test } from 'vitest'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32, int64 } from '../../../../../src/engine/tensor.ts'
import { expectGradient, randomTensor } from '../../../../support/gradient.ts'

const head = constant(randomTensor([5, 3], 3))
const targets = constant(int64([4], [0, 4, 2, 4]))
const weights = constant(float32([4], Float32Array.of(0.5, 0.25, 0, 1)))

test('headLoss: gradient meets finite differences', () =>
  expectGradient((h) => op.headLoss(h, head, targets, weights).loss, [[4, 3]]))

test('headLoss: a row of weight 0 counts neither in the loss nor as correct', async () => {
  const h = input('h', 'float32', [4, 3])
  await using session = await createSession(
    encodeOnnx({ ...op.headLoss(h, head, targets, weights) }),
    {
      threads: 1,
    },
  )
  const a = randomTensor([4, 3], 1)
  const one = await session.run({ h: a })
  a.data.fill(100, 6, 9)
  const other = await session.run({ h: a })
  expect(other.loss!.data[0]).toBe(one.loss!.data[0])
  expect(other.correct!.data[0]).toBe(one.correct!.data[0])
})
