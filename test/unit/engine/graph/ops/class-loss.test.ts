import { expect, test } from 'vitest'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32, int64 } from '../../../../../src/engine/tensor.ts'
import { expectGradient } from '../../../../support/gradient.ts'

const weights = constant(float32([3], Float32Array.of(0.5, 0.25, 1)))
const targets = constant(int64([3], [0, 3, 1]))
const several = constant(float32([3, 4], Float32Array.of(1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1)))

test('crossEntropy: gradient meets finite differences', () =>
  expectGradient((x) => op.crossEntropy(x, targets, weights), [[3, 4]]))

test('binaryCrossEntropy: gradient meets finite differences', () =>
  expectGradient((x) => op.binaryCrossEntropy(x, several, weights), [[3, 4]]))

test('logits far from 0 are no overflow', async () => {
  const x = input('x', 'float32', [1, 2])
  const one = constant(float32([1], Float32Array.of(1)))
  const loss = op.binaryCrossEntropy(x, constant(float32([1, 2], Float32Array.of(1, 0))), one)
  await using session = await createSession(encodeOnnx({ loss }), { threads: 1 })
  const run = async (a: number, b: number) =>
    Number((await session.run({ x: float32([1, 2], Float32Array.of(a, b)) })).loss!.data[0])
  expect(await run(500, -500)).toBe(0)
  expect(await run(-500, 500)).toBeCloseTo(1000, 3)
})
