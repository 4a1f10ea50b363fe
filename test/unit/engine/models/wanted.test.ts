import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { input, reach, type Value } from '../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { weightsOf } from '../../../../src/engine/models/weights.ts'
import { createSession } from '../../../../src/engine/runtime/session.ts'
import { int64 } from '../../../../src/engine/tensor.ts'
import { hiddenRows } from '../../../../src/engine/train/step.ts'
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

const row = (name: string) => input(name, 'int64', [1, 12])
const rows = {
  tokens: row('tokens'),
  positions: row('positions'),
  segments: row('segments'),
}
const index = input('index', 'int64', ['S'])
const everywhere = () => hiddenRows(weights, weightsOf(weights), rows)
const wanted = () => hiddenRows(weights, weightsOf(weights), rows, index)

test('hidden states of some places are those that all of them have there', async () => {
  const outputs = { all: op.pick(everywhere(), index), some: wanted() }
  // One graph holds each weight once: two would name it twice.
  const run = async (name: keyof typeof outputs) => {
    await using session = await createSession(encodeOnnx({ hidden: outputs[name] }), { threads: 1 })
    const fed = (value: (i: number) => number) =>
      int64(
        [1, 12],
        Array.from({ length: 12 }, (_, i) => value(i)),
      )
    const { hidden } = await session.run({
      tokens: fed((i) => (i * 31) % 256),
      positions: fed((i) => i % 7),
      segments: fed((i) => Number(i >= 7)),
      index: int64([3], [2, 6, 11]),
    })
    return hidden!
  }
  const [all, some] = [await run('all'), await run('some')]
  expect(some.dims).toEqual(all.dims)
  for (const [i, x] of some.data.entries()) expect(x).toBeCloseTo(Number(all.data[i]), 5)
})

test('the last layer multiplies no rows but the wanted ones after its attention', () => {
  const products = (hidden: Value) =>
    reach([hidden])
      .nodes.filter(({ op }) => op === 'Gemm')
      .map(({ outputs }) => outputs[0]!.dims[0])
  expect(products(everywhere()).filter((n) => n === 'S')).toEqual([])
  // o_proj, gate_proj, up_proj, down_proj
  expect(products(wanted()).filter((n) => n === 'S')).toHaveLength(4)
  expect(products(wanted())).toHaveLength(products(everywhere()).length)
})
