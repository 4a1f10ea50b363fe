import { expect, test } from 'vitest'
import { gradients } from '../../../../../src/engine/graph/autodiff.ts'
import { constant, input } from '../../../../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../../../../src/engine/graph/onnx.ts'
import * as op from '../../../../../src/engine/graph/ops/ops.ts'
import { createSession } from '../../../../../src/engine/runtime/session.ts'
import { float32 } from '../../../../../src/engine/tensor.ts'
import { quantise } from '../../../../../src/engine/weights/int8.ts'
import { randomTensor } from '../../../../support/gradient.ts'

const [N, IN, OUT] = [6, 64, 48]

/** ‖a − b‖ / ‖b‖ */
const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let difference = 0
  let length = 0
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2
    length += b[i]! ** 2
  }
  return Math.sqrt(difference / length)
}

/** An int8 product beside the exact one: [forward, gradient] of each, for x with one channel 50 times the others. */
async function sideBySide(dynamic: boolean, rows = N) {
  const w = randomTensor([OUT, IN], 1)
  const x = randomTensor([N, IN], 2)
  for (let n = 0; n < N; n++) x.data[n * IN + 3]! *= 50
  const shares = new Float32Array(IN)
  for (let n = 0; n < N; n++) {
    const row = x.data.subarray(n * IN, (n + 1) * IN)
    const square = row.reduce((sum, v) => sum + v * v, 0)
    for (const [i, v] of row.entries()) shares[i]! += (v * v) / square / N
  }
  const q = quantise(w.data, OUT, IN, shares)
  const int8 = (dims: number[], data: Int8Array<ArrayBuffer>) =>
    constant({ dtype: 'int8', dims, data })

  const value = input('x', 'float32', [dynamic ? 'N' : N, IN])
  const probe = constant(randomTensor([N, OUT], 3))
  const exact = op.linear(value, constant(w))
  const matrix = {
    forward: int8([IN, OUT], q.forward),
    forward_scale: constant(float32([OUT], q.forward_scale)),
    backward: int8([OUT, IN], q.backward),
    backward_scale: constant(float32([IN], q.backward_scale)),
  }
  const smoothing = constant(float32([IN], q.smoothing))
  const quantised = op.int8Linears(value, smoothing, [matrix])[0]!
  const gradient = (y: typeof exact) => gradients(op.sumAll(op.mul(y, probe)), [value])[0]!
  const outputs = { exact, quantised, ...(!dynamic && { dExact: gradient(exact) }) }
  const onnx = encodeOnnx(dynamic ? outputs : { ...outputs, dQuantised: gradient(quantised) })
  await using session = await createSession(onnx, { threads: 1 })
  return await session.run({ x: float32([rows, IN], x.data.slice(0, rows * IN)) })
}

test('an int8 product is within 2 % of the exact one, forward and backward, outliers or not', async () => {
  const r = await sideBySide(false)
  const numbers = (name: string) => r[name]!.data as Float32Array
  expect(distance(numbers('quantised'), numbers('exact'))).toBeLessThan(0.02)
  expect(distance(numbers('dQuantised'), numbers('dExact'))).toBeLessThan(0.02)
  expect(distance(numbers('quantised'), numbers('exact'))).toBeGreaterThan(1e-5)
})

test('the number of rows may be known at run time only', async () => {
  const r = await sideBySide(true)
  const numbers = (name: string) => r[name]!.data as Float32Array
  expect(distance(numbers('quantised'), numbers('exact'))).toBeLessThan(0.02)
  const none = await sideBySide(true, 0)
  expect(none.quantised!.dims).toEqual([0, OUT])
})

test('quantise: both copies are the matrix again, within half a step', () => {
  const w = randomTensor([3, 5], 4).data
  const shares = Float32Array.of(0.1, 0.4, 0.2, 0, 0.3)
  const q = quantise(w, 3, 5, shares)
  for (let o = 0; o < 3; o++)
    for (let i = 0; i < 5; i++) {
      const forward = q.forward[i * 3 + o]! * q.forward_scale[o]! * q.smoothing[i]!
      const half = 0.501 * q.forward_scale[o]! * q.smoothing[i]!
      expect(Math.abs(forward - w[o * 5 + i]!)).toBeLessThanOrEqual(half)
      const backward = q.backward[o * 5 + i]! * q.backward_scale[i]!
      expect(Math.abs(backward - w[o * 5 + i]!)).toBeLessThanOrEqual(0.501 * q.backward_scale[i]!)
    }
  expect(q.smoothing[3]).toBe(1)
})
