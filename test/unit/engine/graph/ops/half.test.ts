import { expect, test } from 'vitest'
import { gradients } from '../../../../../src/engine/graph/autodiff.ts'
import { constant, input, scalar } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { relativeError } from '../../../../support/fixtures.ts'
import { randomTensor } from '../../../../support/gradient.ts'

const [N, IN, OUT] = [5, 32, 16]
const x = randomTensor([N, IN], 1)
const w = constant(randomTensor([OUT, IN], 2))

/** Product and gradient of Σ product · dy, dy being random and of this size. */
async function run(product: typeof op.linear, size = 1) {
  const value = input('x', 'float32', [N, IN])
  const y = product(value, w)
  const dy = op.mul(constant(randomTensor([N, OUT], 3)), scalar(size))
  const graph = { y, dx: gradients(y, [value], dy)[0]! }
  await using session = await createSession(encodeOnnx(graph), { threads: 1 })
  const outputs = await session.run({ x })
  return { y: outputs.y!.data as Float32Array, dx: outputs.dx!.data as Float32Array }
}

test('product and gradient are those of float32 but for the rounding to 11 bits', async () => {
  const [half, exact] = [await run(op.halfLinear), await run(op.linear)]
  for (const part of ['y', 'dx'] as const) {
    const error = relativeError(half[part], exact[part])
    expect(error).toBeLessThan(2e-3)
    expect(error).toBeGreaterThan(1e-5)
  }
})

test('a gradient that is too small comes to nothing, one that is too large is not finite', async () => {
  expect((await run(op.halfLinear, 1e-9)).dx.every((d) => d === 0)).toBe(true)
  const scaled = await run(op.halfLinear, 1e-9 * 2 ** 24)
  const exact = await run(op.linear, 1e-9 * 2 ** 24)
  expect(relativeError(scaled.dx, exact.dx)).toBeLessThan(2e-3)
  expect((await run(op.halfLinear, 2 ** 20)).dx.some((d) => !Number.isFinite(d))).toBe(true)
})
