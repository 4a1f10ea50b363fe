import { test } from 'vitest'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { expectGradient } from '../../../../support/gradient.ts'

test('sums and means: gradients meet finite differences', async () => {
  await expectGradient((x) => op.reduceSum(x, [1]), [[2, 3, 2]])
  await expectGradient((x) => op.reduceMean(x, [0, -1]), [[2, 3, 2]])
  await expectGradient(op.sumAll, [[2, 3]])
})

test('softmax: gradient meets finite differences', () => expectGradient(op.softmax, [[3, 4]]))

test('rmsNorm: gradients of input and weight meet finite differences', () =>
  expectGradient((x, w) => op.rmsNorm(x, w, 1e-5), [[3, 4], [4]], { range: [0.3, 1.5] }))

test('layerNorm: gradients of input, weight and bias meet finite differences', () =>
  expectGradient((x, w, b) => op.layerNorm(x, w, b, 1e-5), [[3, 4], [4], [4]], {
    range: [0.3, 1.5],
  }))
