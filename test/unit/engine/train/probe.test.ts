import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { input } from '../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../src/engine/runtime/session.ts'
import { float32 } from '../../../../src/engine/tensor.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { adapterSubject } from '../../../../src/engine/train/adapter-subject.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { createProbe } from '../../../../src/engine/train/probe.ts'
import type { Plan } from '../../../../src/engine/train/request.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let model = ''
beforeAll(async () => {
  model = await writeTinyModel(join(folder, 'tiny'))
})

test('divergence is the sum of p · ln(p / q)', async () => {
  const logits = (name: string) => input(name, 'float32', ['S', 3])
  const graph = { d: op.divergence(logits('p'), logits('q')) }
  await using session = await createSession(encodeOnnx(graph), { threads: 1 })
  const [p, q] = [
    [0.2, 0.3, 0.5],
    [0.6, 0.3, 0.1],
  ]
  const rows = (...all: number[][]) =>
    float32([all.length, 3], Float32Array.from(all.flat(), Math.log))
  const { d } = await session.run({ p: rows(p!, q!), q: rows(q!, q!) })
  const expected = p!.reduce((sum, x, i) => sum + x * Math.log(x / q![i]!), 0)
  expect(Number(d!.data[0])).toBeCloseTo(expected, 5)
})

test('a fresh adapter is its base, and one that was moved is not', async () => {
  const checkpoint = await openCheckpoint(model)
  const weights = await mapWeights(checkpoint, join(folder, 'cache'))
  const plan = {
    lora: { rank: 2, alpha: 4, target_modules: ['q_proj', 'down_proj'] },
    rows: 1,
    row_length: 64,
    threads: 1,
  } as Plan
  const setup = { checkpoint, weights, plan, seed: 1, initial: undefined, examples: [] }
  const subject = adapterSubject(supervised, setup)
  const tokenizer = await openTokenizer(checkpoint)
  const turn = async () => ({ [Symbol.dispose]() {} })
  await using probe = createProbe({ weights, tuned: subject.tuned!, tokenizer, plan, turn })
  const flat = await subject.start()
  const fresh = await probe.measure(flat)
  expect(fresh.divergence).toBeCloseTo(0, 6)
  expect(fresh.loss).toBeCloseTo(fresh.base_loss, 6)
  // One token a byte, about evenly likely for random weights.
  expect(fresh.base_loss).toBeGreaterThan(Math.log(258) - 1)
  const moved = await probe.measure(flat.map((x, i) => x + Math.sin(i)))
  expect(moved.divergence).toBeGreaterThan(0.01)
  expect(moved.base_loss).toBeCloseTo(fresh.base_loss, 6)
})
