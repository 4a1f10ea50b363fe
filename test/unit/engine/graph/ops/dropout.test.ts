import { expect, test } from 'vitest'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createDropout } from '../../../../../src/engine/models/dropout.ts'
import { randomWords } from '../../../../../src/engine/random.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32, int32 } from '../../../../../src/engine/tensor.ts'
import { expectGradient } from '../../../../support/gradient.ts'

const words = (count: number, stream: number) =>
  randomWords(count, 7, [stream, 1, 0]).map((word) => word | 1)

test('dropout: gradient meets finite differences', () => {
  const rows = constant(int32([6, 1], words(6, 0)))
  const columns = constant(int32([1, 5], words(5, 1)))
  return expectGradient((x) => op.dropout(x, rows, columns, 0.4), [[6, 5]])
})

const N = 256
const D = 200
const RATE = 0.1
const ones = float32([N, D], new Float32Array(N * D).fill(1))

async function masks(runs: { seed: number; step: number; microBatch: number }[]) {
  const { drop, feeds } = createDropout(RATE)
  const x = input('x', 'float32', [N, D])
  const onnx = encodeOnnx({ first: drop(x, 'a'), second: drop(x, 'b') })
  await using session = await createSession(onnx, { threads: 1 })
  const found: Float32Array[] = []
  for (const run of runs) {
    const { first, second } = await session.run({ x: ones, ...feeds(run) })
    found.push(first!.data as Float32Array, second!.data as Float32Array)
  }
  return found
}

const zeros = (mask: Float32Array) => mask.reduce((n, y) => n + Number(y === 0), 0)

test('a share of the elements is dropped, in every row and column, and the rest made up for it', async () => {
  const [mask] = await masks([{ seed: 1, step: 1, microBatch: 0 }])
  // Five standard deviations of a binomial count.
  const bound = (n: number) => 5 * Math.sqrt(n * RATE * (1 - RATE))
  expect(Math.abs(zeros(mask!) - N * D * RATE)).toBeLessThan(bound(N * D))
  for (let n = 0; n < N; n++)
    expect(Math.abs(zeros(mask!.subarray(n * D, (n + 1) * D)) - D * RATE)).toBeLessThan(bound(D))
  for (let d = 0; d < D; d++) {
    const column = Float32Array.from({ length: N }, (_, n) => mask![n * D + d]!)
    expect(Math.abs(zeros(column) - N * RATE)).toBeLessThan(bound(N))
  }
  expect(new Set(mask)).toEqual(new Set([0, Math.fround(1 / Math.fround(1 - RATE))]))
})

test('a site that is computed once more is fed once', async () => {
  const { drop, feeds } = createDropout(RATE)
  const x = input('x', 'float32', [N, D])
  const onnx = encodeOnnx({ twice: op.sub(drop(x, 'a'), drop(op.scale(x, 1), 'a')) })
  await using session = await createSession(onnx, { threads: 1 })
  const { twice } = await session.run({ x: ones, ...feeds({ seed: 1, step: 1, microBatch: 0 }) })
  expect(new Set(twice!.data as Float32Array)).toEqual(new Set([0]))
})

test('the same run drops the same; another site, micro-batch, step or seed drops independently', async () => {
  const run = { seed: 1, step: 1, microBatch: 0 }
  const all = await masks([
    run,
    run,
    { ...run, microBatch: 1 },
    { ...run, step: 2 },
    { ...run, seed: 2 },
  ])
  const [first, second, again] = all
  expect(again).toEqual(first)
  for (const other of [second!, ...all.slice(4)]) {
    const both = first!.reduce((n, y, i) => n + Number(y === 0 && other[i] === 0), 0)
    const share = RATE * RATE
    const bound = 5 * Math.sqrt(N * D * share * (1 - share))
    expect(Math.abs(both - N * D * share)).toBeLessThan(bound)
  }
})
