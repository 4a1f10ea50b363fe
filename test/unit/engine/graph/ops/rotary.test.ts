import { expect, test } from 'vitest'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { int64 } from '../../../../../src/engine/tensor.ts'
import { expectGradient, randomTensor } from '../../../../support/gradient.ts'

const frequencies = Float32Array.of(1, 0.1)
const positions = constant(int64([2, 2], [0, 3, 1, 2]))

test('rotary: gradient meets finite differences', () =>
  expectGradient((x) => op.rotary(x, positions, op.rotaryTable(4, frequencies)), [[2, 2, 8]]))

test('rotary: a head at position p turns each pair by p times its frequency', async () => {
  const x = input('x', 'float32', [2, 2, 8])
  const y = op.rotary(x, positions, op.rotaryTable(4, frequencies))
  await using session = await createSession(encodeOnnx({ y }), { threads: 1 })
  const tensor = randomTensor([2, 2, 8], 5)
  const { y: got } = await session.run({ x: tensor })
  const places = [0, 3, 1, 2]
  for (let token = 0; token < 4; token++)
    for (let head = 0; head < 2; head++)
      for (let i = 0; i < 2; i++) {
        const angle = places[token]! * frequencies[i]!
        const at = token * 8 + head * 4 + i
        const [a, b] = [tensor.data[at]!, tensor.data[at + 2]!]
        expect(got!.data[at]).toBeCloseTo(a * Math.cos(angle) - b * Math.sin(angle), 5)
        expect(got!.data[at + 2]).toBeCloseTo(b * Math.cos(angle) + a * Math.sin(angle), 5)
      }
})

test('rotaryRows: the positions of a run are turned as the table of all positions turns them', async () => {
  const at = [
    [0, 3],
    [70_000, 131_071],
  ].flat()
  const x = input('x', 'float32', [2, 2, 8])
  const given = input('at', 'int64', [2, 2])
  const { table, rows } = op.rotaryRows(given, frequencies)
  await using session = await createSession(
    encodeOnnx({
      y: op.rotary(x, rows, table),
      z: op.rotary(x, given, op.rotaryTable(131_072, frequencies)),
    }),
    { threads: 1 },
  )
  const { y, z } = await session.run({ x: randomTensor([2, 2, 8], 5), at: int64([2, 2], at) })
  for (const [i, want] of z!.data.entries()) expect(y!.data[i]).toBeCloseTo(Number(want), 6)
})
