import { expect, test } from 'vitest'
import { input, reach } from '../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { skipNorms } from '../../../../src/engine/graph/skip-norms.ts'
import { createSession } from '../../../../src/engine/runtime/session.ts'
import { randomTensor } from '../../../support/gradient.ts'

const x = input('x', 'float32', ['N', 8])
const y = input('y', 'float32', ['N', 8])
const w = input('w', 'float32', [8])
const sum = op.add(x, y)
const normed = op.rmsNorm(sum, w, 1e-5)
const outputs = { a: op.mul(sum, normed), b: op.add(sum, x) }

test('a sum and its norm are one operator, and what else reads the sum has it', async () => {
  const feeds = { x: randomTensor([3, 8], 1), y: randomTensor([3, 8], 2), w: randomTensor([8], 3) }
  const results = []
  for (const rewrite of [skipNorms, undefined]) {
    await using session = await createSession(encodeOnnx(outputs, [], rewrite), { threads: 1 })
    results.push(await session.run(feeds))
  }
  for (const name of ['a', 'b'])
    for (const [i, value] of [...(results[0]![name]!.data as Float32Array)].entries())
      expect(value).toBeCloseTo((results[1]![name]!.data as Float32Array)[i]!, 5)
  const { nodes } = reach(Object.values(outputs))
  expect(skipNorms(nodes).map(({ op }) => op)).toEqual([
    'SkipSimplifiedLayerNormalization',
    'Mul',
    'Add',
  ])
})

test('a sum of shapes that differ stays as it is', () => {
  const { nodes } = reach([op.rmsNorm(op.add(x, w), w, 1e-5)])
  expect(skipNorms(nodes)).toEqual(nodes)
})
