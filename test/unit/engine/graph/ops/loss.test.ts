import { expect, test } from 'vitest'
import { gradients } from '../../../../../src/engine/graph/autodiff.ts'
import { constant, input, type Value } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32, int64 } from '../../../../../src/engine/tensor.ts'
import { quantise } from '../../../../../src/engine/weights/int8.ts'
import { expectGradient, randomTensor } from '../../../../support/gradient.ts'

const head = constant(randomTensor([5, 3], 3))
const plain: op.Head = { weight: head, logits: (h) => op.linear(h, head) }
const targets = constant(int64([4], [0, 4, 2, 4]))
const shares = Float32Array.of(0.5, 0.25, 0, 1)
const weights = constant(float32([4], shares))
const sure = constant({ dtype: 'bool', dims: [1], data: Uint8Array.of(1) })
const once: op.HeadChunks = { rows: 4, count: 1, always: sure, learning: true }

test('headLoss: gradient meets finite differences', () =>
  expectGradient((h) => op.headLoss(h, plain, targets, weights, once).loss, [[4, 3]]))

test('headLogProbs: gradient meets finite differences, and its sum is headLoss', async () => {
  await expectGradient((h) => op.headLogProbs(h, head, targets, sure).logProbs, [[4, 3]])
  const h = input('h', 'float32', [4, 3])
  const { logProbs, hits } = op.headLogProbs(h, head, targets, sure)
  const { loss, correct } = op.headLoss(h, plain, targets, weights, once)
  await using session = await createSession(encodeOnnx({ logProbs, hits, loss, correct }), {
    threads: 1,
  })
  const got = await session.run({ h: randomTensor([4, 3], 1) })
  const each = got.logProbs!.data as Float32Array
  const sum = shares.reduce((total, share, i) => total + share * each[i]!, 0)
  expect(-sum).toBeCloseTo(Number(got.loss!.data[0]), 5)
  const right = shares.reduce((n, share, i) => n + (share > 0 ? Number(got.hits!.data[i]) : 0), 0)
  expect(right).toBe(Number(got.correct!.data[0]))
})

const cosine = (a: Float32Array, b: Float32Array): number => {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, v, i) => sum + v * y[i]!, 0)
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
}

/** Rows that lie so near to their targets' weights, [S, D]: at 0 anything is likely, at 30 the target is nearly certain. */
const rowsNear = (matrix: Float32Array, [v, d]: readonly [number, number], nearness: number) => {
  const noise = randomTensor([8, d], 7).data as Float32Array
  const of = [3, v - 1, 0, 17, 17, 40, 9, 77]
  const lengths = of.map((t) =>
    matrix.subarray(t * d, t * d + d).reduce((sum, x) => sum + x * x, 0),
  )
  const data = Float32Array.from({ length: 8 * d }, (_, i) => {
    const row = Math.floor(i / d)
    return noise[i]! + (nearness * matrix[of[row]! * d + (i % d)]!) / lengths[row]!
  })
  return { rows: float32([8, d], data), of: BigInt64Array.from(of, BigInt) }
}

test('headLoss: in int8 the gradient is nearly that of float32, however sure the model is', async () => {
  const [v, d] = [2000, 32]
  const matrix = randomTensor([v, d], 5)
  const { backward, backward_scale } = quantise(
    matrix.data as Float32Array,
    v,
    d,
    new Float32Array(d).fill(1),
  )
  const weight = constant(matrix)
  const exact: op.Head = { weight, logits: (h) => op.linear(h, weight) }
  const int8 = {
    steps: constant({ dtype: 'int8', dims: [v, d], data: backward }),
    scale: constant(float32([d], backward_scale)),
  }
  const h = input('h', 'float32', ['S', d])
  const t = input('t', 'int64', ['S'])
  const w = input('w', 'float32', ['S'])
  const dh = (head: op.Head) => gradients(op.headLoss(h, head, t, w, once).loss, [h])[0]!
  const onnx = encodeOnnx({ exact: dh(exact), int8: dh({ ...exact, int8 }) })
  await using session = await createSession(onnx, { threads: 1 })
  for (const nearness of [-5, 0, 5, 8, 12]) {
    const { rows, of } = rowsNear(matrix.data as Float32Array, [v, d], nearness)
    const got = await session.run({
      h: rows,
      t: { dtype: 'int64', dims: [8], data: of },
      w: float32([8], new Float32Array(8).fill(1)),
    })
    const [a, b] = [got.exact!.data as Float32Array, got.int8!.data as Float32Array]
    for (let row = 0; row < 8; row++) {
      const [x, y] = [a, b].map((all) => all.subarray(row * d, row * d + d))
      expect(cosine(x!, y!), `row ${row}, ${nearness} near its target`).toBeGreaterThan(0.98)
    }
  }
  const none = await session.run({
    h: float32([0, d], new Float32Array()),
    t: int64([0], []),
    w: float32([0], new Float32Array()),
  })
  expect(none.int8!.dims).toEqual([0, d])
})

test('headLoss: chunk by chunk it is the same, an empty last chunk too', async () => {
  const yes = input('yes', 'bool', [1])
  const h = input('h', 'float32', ['S', 3])
  const [t, w] = [input('t', 'int64', ['S']), input('w', 'float32', ['S'])]
  const outputs: Record<string, Value> = {}
  const whole = op.headLoss(h, plain, t, w, { ...once, always: yes })
  for (const learning of [true, false]) {
    const chunks = { rows: 2, count: 3, always: yes, learning }
    const { loss, correct } = op.headLoss(h, plain, t, w, chunks)
    Object.assign(outputs, { [`loss.${learning}`]: loss, [`correct.${learning}`]: correct })
    if (learning) outputs.dh = gradients(loss, [h])[0]!
  }
  const onnx = encodeOnnx({ ...outputs, ...whole, whole: gradients(whole.loss, [h])[0]! })
  await using session = await createSession(onnx, { threads: 1 })
  for (const rows of [4, 3, 1]) {
    const got = await session.run({
      yes: { dtype: 'bool', dims: [1], data: Uint8Array.of(1) },
      h: randomTensor([rows, 3], rows),
      t: int64([rows], [0, 4, 2, 4].slice(0, rows)),
      w: float32([rows], shares.slice(0, rows)),
    })
    const close = (a: string, b: string) => {
      expect(got[a]!.dims, a).toEqual(got[b]!.dims)
      for (const [i, x] of (got[b]!.data as Float32Array).entries())
        expect(Number(got[a]!.data[i]), a).toBeCloseTo(x, 5)
    }
    for (const learning of [true, false]) {
      close(`loss.${learning}`, 'loss')
      close(`correct.${learning}`, 'correct')
    }
    close('dh', 'whole')
  }
})

test('headLoss: a row of weight 0 counts neither in the loss nor as correct', async () => {
  const h = input('h', 'float32', [4, 3])
  await using session = await createSession(
    encodeOnnx({ ...op.headLoss(h, plain, targets, weights, once) }),
    {
      threads: 1,
    },
  )
  const a = randomTensor([4, 3], 1)
  const one = await session.run({ h: a })
  a.data.fill(100, 6, 9)
  const other = await session.run({ h: a })
  expect(other.loss!.data[0]).toBe(one.loss!.data[0])
  expect(other.correct!.data[0]).toBe(one.correct!.data[0])
})
