import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { gradients } from '../../../../src/engine/graph/autodiff.ts'
import { input, reach, type Value } from '../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { bindAdapter, initialAdapter, loraLayout } from '../../../../src/engine/models/adapters.ts'
import { architectureOf } from '../../../../src/engine/models/index.ts'
import { type Keep, kept } from '../../../../src/engine/models/keep.ts'
import { packedAttention } from '../../../../src/engine/models/layers.ts'
import { weightsOf } from '../../../../src/engine/models/weights.ts'
import { createSession } from '../../../../src/engine/runtime/session.ts'
import { float32, int64 } from '../../../../src/engine/tensor.ts'
import { type MappedWeights, openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let weights: MappedWeights
beforeAll(async () => {
  const model = await writeTinyModel(join(folder, 'tiny'))
  weights = await mapWeights(await openCheckpoint(model), join(folder, 'cache'))
})

const T = 16

/** The gradient of Σ hidden² by an adapter, and the graph it comes from. */
function graph(keep: Keep) {
  const layout = loraLayout(weights, { rank: 2, alpha: 4, target_modules: ['q_proj', 'up_proj'] })
  const ids = input('ids', 'int64', [T])
  const positions = input('positions', 'int64', [1, T])
  const segments = input('segments', 'int64', [1, T])
  const flat = input('adapter', 'float32', [layout.parameters])
  const { loras, parts } = bindAdapter(layout, flat)
  const model = weightsOf(weights, { loras, kept: kept({ keep, positions, learned: parts }) })
  const attend = packedAttention(weights.config, { rows: 1, length: T, positions, segments })
  const tokens = { ids, positions: op.reshape(positions, [T]) }
  const hidden = architectureOf(weights.config).hidden(tokens, model, weights.config, attend)
  const loss = op.sumAll(op.mul(hidden, hidden))
  const outputs: Record<string, Value> = { loss }
  for (const [i, g] of gradients(loss, parts).entries()) outputs[`g${i}`] = g
  return { outputs, layout }
}

async function run(keep: Keep) {
  const { outputs, layout } = graph(keep)
  await using session = await createSession(encodeOnnx(outputs), { threads: 1 })
  const adapter = initialAdapter(layout, 3).map((v, i) => v || Math.cos(i) / 10)
  return await session.run({
    ids: int64(
      [T],
      Array.from({ length: T }, (_, i) => (i * 31) % 256),
    ),
    positions: int64(
      [1, T],
      Array.from({ length: T }, (_, i) => i % 9),
    ),
    segments: int64(
      [1, T],
      Array.from({ length: T }, (_, i) => Number(i >= 9)),
    ),
    adapter: float32([layout.parameters], adapter),
  })
}

test.each(['products', 'blocks'] as const)(
  'keeping only %s of the activations changes no bit of the gradient',
  async (keep) => {
    const all = await run('everything')
    const some = await run(keep)
    expect(Object.keys(some)).toEqual(Object.keys(all))
    for (const [name, tensor] of Object.entries(all))
      expect(some[name]!.data, name).toEqual(tensor.data)
  },
)

test('going back, blocks are computed again after the gradients above them, products are not', () => {
  const count = (keep: Keep, ops: string[]) =>
    reach(Object.values(graph(keep).outputs)).nodes.filter((n) => ops.includes(n.op)).length
  const softmaxes = (keep: Keep) => count(keep, ['Softmax'])
  expect(softmaxes('everything')).toBe(2)
  expect(softmaxes('products')).toBe(4)
  expect(softmaxes('blocks')).toBe(4)
  // down_proj of each of the two layers, and both norms.
  const products = (keep: Keep) => count(keep, ['SimplifiedLayerNormalization'])
  expect(products('products')).toBe(products('everything'))
  expect(products('blocks')).toBe(products('everything') + 4)
})
