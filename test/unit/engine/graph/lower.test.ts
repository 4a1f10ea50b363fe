import { expect, test } from 'vitest'
import { gradients } from '../../../../src/engine/graph/autodiff.ts'
import { input } from '../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../src/engine/runtime/session.ts'
import { float32, int64 } from '../../../../src/engine/tensor.ts'
import { randomTensor } from '../../../support/gradient.ts'

test('a graph without LogSoftmax computes the same loss and gradient', async () => {
  const x = input('x', 'float32', [3, 5])
  const [targets, weights] = [input('targets', 'int64', [3]), input('weights', 'float32', [3])]
  const loss = op.crossEntropy(x, targets, weights)
  const graph = { loss, dx: gradients(loss, [x])[0]! }
  const feeds = {
    x: randomTensor([3, 5], 1, [-40, 40]),
    targets: int64([3], [0, 4, 2]),
    weights: float32([3], Float32Array.of(1, 2, 0.5)),
  }
  const run = async (onnx: Uint8Array) => {
    await using session = await createSession(onnx, { threads: 1 })
    return await session.run(feeds)
  }
  const [plain, lowered] = [encodeOnnx(graph), encodeOnnx(graph, ['LogSoftmax'])]
  const has = (onnx: Uint8Array) => Buffer.from(onnx).includes('LogSoftmax')
  expect([has(plain), has(lowered)]).toEqual([true, false])
  const [want, got] = [await run(plain), await run(lowered)]
  expect(Number(got.loss!.data[0])).toBeCloseTo(Number(want.loss!.data[0]), 4)
  for (const [i, d] of want.dx!.data.entries())
    expect(Number(got.dx!.data[i])).toBeCloseTo(Number(d), 6)
})

test('a graph without QuickGelu computes the same', async () => {
  const [g, u] = [input('g', 'float32', [3, 5]), input('u', 'float32', [3, 5])]
  const y = op.swiglu(g, u)
  const graph = { y, dg: gradients(y, [g])[0]! }
  const [plain, lowered] = [encodeOnnx(graph), encodeOnnx(graph, ['QuickGelu'])]
  const has = (onnx: Uint8Array) => Buffer.from(onnx).includes('QuickGelu')
  expect([has(plain), has(lowered)]).toEqual([true, false])
  const [want, got] = await Promise.all(
    [plain, lowered].map(async (onnx) => {
      await using session = await createSession(onnx, { threads: 1 })
      return await session.run({ g: randomTensor([3, 5], 1, [-9, 9]), u: randomTensor([3, 5], 2) })
    }),
  )
  for (const name of ['y', 'dg'])
    for (const [i, x] of want![name]!.data.entries())
      expect(Number(got![name]!.data[i]), name).toBeCloseTo(Number(x), 5)
})
