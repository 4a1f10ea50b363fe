// Gradients held against finite differences, on random inputs, through a real session.

import { expect } from 'vitest'
import { gradients } from '../../src/engine/graph/autodiff.ts'
import { constant, input, size, staticDims, type Value } from '../../src/engine/graph/graph.ts'
import { encodeOnnx } from '../../src/engine/graph/onnx.ts'
import { mul, sumAll } from '../../src/engine/graph/ops/ops.ts'
import { uniform } from '../../src/engine/random.ts'
import { createSession } from '../../src/engine/runtime/session.ts'
import { float32, type HostTensor } from '../../src/engine/tensor.ts'

/** Uniform in [from, to), the same for the same seed. */
export const randomTensor = (
  dims: readonly number[],
  seed: number,
  [from, to]: readonly [number, number] = [-1, 1],
): HostTensor<'float32'> =>
  float32(
    dims,
    Float32Array.from({ length: size(dims) }, (_, i) => from + (to - from) * uniform(seed, 9, i)),
  )

export interface GradientOptions {
  /** Where the inputs are drawn from; logarithms want it above 0. */
  range?: readonly [number, number]
}

/**
 * d Σ r·f(x) for random r, by autodiff and by central differences in each element of each input.
 * float32 with a step of 1e-2: what the quotient loses by rounding (1e-7 / 1e-2) and by curvature stays under 2e-3.
 */
export async function expectGradient(
  f: (...inputs: Value[]) => Value,
  shapes: readonly (readonly number[])[],
  { range = [-1, 1] }: GradientOptions = {},
): Promise<void> {
  const inputs = shapes.map((dims, i) => input(`x${i}`, 'float32', dims))
  const y = f(...inputs)
  const probe = constant(randomTensor(staticDims(y.dims), 77))
  const loss = sumAll(mul(y, probe))
  const outputs: Record<string, Value> = { loss }
  for (const [i, g] of gradients(loss, inputs).entries()) outputs[`d${i}`] = g
  await using session = await createSession(encodeOnnx(outputs), { threads: 1 })

  const values = shapes.map((dims, i) => randomTensor(dims, i + 1, range))
  const feeds = Object.fromEntries(values.map((v, i) => [`x${i}`, v]))
  const lossNow = async () => Number((await session.run(feeds)).loss!.data[0])
  const results = await session.run(feeds)

  const h = 1e-2
  for (const [i, v] of values.entries()) {
    const got = results[`d${i}`]!
    expect(got.dims).toEqual(v.dims)
    for (let j = 0; j < v.data.length; j++) {
      const at = v.data[j]!
      v.data[j] = at + h
      const above = await lossNow()
      v.data[j] = at - h
      const below = await lossNow()
      v.data[j] = at
      const want = (above - below) / (2 * h)
      const close = Math.abs(Number(got.data[j]) - want) <= 2e-3 * Math.max(1, Math.abs(want))
      expect(close, `d loss / d x${i}[${j}]: ${got.data[j]}, finite difference ${want}`).toBe(true)
    }
  }
}
