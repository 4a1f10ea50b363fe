import { expect, test } from 'vitest'
import { gradients } from '../../../../src/engine/graph/autodiff.ts'
import { type Graph, input } from '../../../../src/engine/graph/graph.ts'
import type { Lowered } from '../../../../src/engine/graph/lower.ts'
import { encodeOnnx } from '../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { createSession, type Feeds } from '../../../../src/engine/runtime/session.ts'
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
  await expectLowered(graph, 'QuickGelu', {
    g: randomTensor([3, 5], 1, [-9, 9]),
    u: randomTensor([3, 5], 2),
  })
})

test('a graph without products of transposed matrices computes the same', async () => {
  const [a, b] = [input('a', 'float32', [2, 3, 5]), input('b', 'float32', [2, 4, 5])]
  const y = op.batchedGemm(a, b, { transB: true, alpha: 0.25 })
  const [da, db] = gradients(y, [a, b])
  await expectLowered({ y, da: da!, db: db! }, 'FusedMatMul', {
    a: randomTensor([2, 3, 5], 1),
    b: randomTensor([2, 4, 5], 2),
  })
})

test('a graph without a fused norm computes the same, and the 1/rms that its gradient wants', async () => {
  const [x, w] = [input('x', 'float32', [3, 5]), input('w', 'float32', [5])]
  const y = op.rmsNorm(x, w, 1e-5)
  const [dx] = gradients(op.sumAll(op.mul(y, y)), [x])
  await expectLowered({ y, dx: dx! }, 'SimplifiedLayerNormalization', {
    x: randomTensor([3, 5], 1),
    w: randomTensor([5], 2),
  })
})

/** Holds all outputs of the graph with this operator and without it against each other. */
async function expectLowered(graph: Graph, operator: Lowered, feeds: Feeds) {
  const [plain, lowered] = [encodeOnnx(graph), encodeOnnx(graph, [operator])]
  const has = (onnx: Uint8Array) => Buffer.from(onnx).includes(operator)
  expect([has(plain), has(lowered)]).toEqual([true, false])
  const [want, got] = await Promise.all(
    [plain, lowered].map(async (onnx) => {
      await using session = await createSession(onnx, { threads: 1 })
      return await session.run(feeds)
    }),
  )
  for (const name of Object.keys(graph))
    for (const [i, x] of want![name]!.data.entries())
      expect(Number(got![name]!.data[i]), name).toBeCloseTo(Number(x), 5)
}
