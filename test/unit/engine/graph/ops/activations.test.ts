import { expect, test } from 'vitest'
import { input, type Value } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32 } from '../../../../../src/engine/tensor.ts'
import { expectGradient } from '../../../../support/gradient.ts'

test('swiglu: gradients of both inputs meet finite differences', () =>
  expectGradient(
    op.swiglu,
    [
      [2, 3],
      [2, 3],
    ],
    { range: [0.5, 2] },
  ))

const gelus: Record<string, (x: Value) => Value> = { gelu: op.gelu, geluNew: op.geluNew }

test.each(Object.keys(gelus))('%s: gradient meets finite differences', (name) =>
  expectGradient(gelus[name]!, [[4, 5]], { range: [-3, 3] }),
)

// torch.nn.functional.gelu, approximate='none' and 'tanh', in float64.
test.each([
  ['gelu', [-0.00404969, -0.15865526, 0, 0.34573123, 1.9544997]],
  ['geluNew', [-0.00363739, -0.15880799, 0, 0.345714, 1.9545977]],
])('%s is what PyTorch computes in float64, to six digits', async (name, want) => {
  const y = gelus[name]!(input('x', 'float32', [5]))
  await using session = await createSession(encodeOnnx({ y }), { threads: 1 })
  const { y: got } = await session.run({ x: float32([5], Float32Array.of(-3, -1, 0, 0.5, 2)) })
  for (const [i, value] of want.entries()) expect(got!.data[i]).toBeCloseTo(value, 6)
})
