import { expect, test } from 'vitest'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32, int64 } from '../../../../../src/engine/tensor.ts'
import { expectGradient, randomTensor } from '../../../../support/gradient.ts'

const head = constant(randomTensor([5, 3], 3))
const targets = constant(int64([4], [0, 4, 2, 4]))
const shares = Float32Array.of(0.5, 0.25, 0, 1)
const weights = constant(float32([4], shares))

test('headLoss: gradient meets finite differences', () =>
  expectGradient((h) => op.headLoss(h, head, targets, weights).loss, [[4, 3]]))

test('headLogProbs: gradient meets finite differences, and its sum is headLoss', async () => {
  await expectGradient((h) => op.headLogProbs(h, head, targets).logProbs, [[4, 3]])
  const h = input('h', 'float32', [4, 3])
  const { logProbs, hits } = op.headLogProbs(h, head, targets)
  const { loss, correct } = op.headLoss(h, head, targets, weights)
  await using session = await createSession(encodeOnnx({ logProbs, hits, loss, correct }), {
    threads: 1,
  })
  const got = await session.run({ h: randomTensor([4, 3], 1) })
  const each = got.logProbs!.data as Float32Array
  const sum = shares.reduce((total, share, i) => total + share * each[i]!, 0)
  expect(-sum).toBeCloseTo(Number(got.loss!.data[0]), 5)
  const right = shares.reduce((n, share, i) => n + (share > 0 ? Number(got.hits!.data[i]) : 0), 0)
  expect(right).toBe(Number(got.correct!.data[0]))
})

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
