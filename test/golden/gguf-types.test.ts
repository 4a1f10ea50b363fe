import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { dequantise, type FloatDtype } from '../../src/engine/weights/dequantise.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { testModel } from '../support/shared.ts'

type Digests = Record<string, { dims: number[]; sha256: string }>

const fixture = (name: string) => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))

async function expectDigests(model: string, digests: string) {
  const expected = JSON.parse(readFileSync(fixture(digests), 'utf8')) as Digests
  const { tensors } = await openCheckpoint(model)
  expect([...tensors.keys()].sort()).toEqual(Object.keys(expected).sort())
  for (const [name, { dims, sha256 }] of Object.entries(expected)) {
    const tensor = tensors.get(name)!
    const hash = createHash('sha256').update(await readTensor(tensor))
    expect({ name, dims: tensor.dims, sha256: hash.digest('hex') }).toEqual({ name, dims, sha256 })
  }
}

test("F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are what Python's gguf makes of them, to the bit", () =>
  expectDigests(fixture('gguf-all-types.gguf'), 'gguf-all-types.json'))

const blocks = JSON.parse(readFileSync(fixture('gguf-blocks.json'), 'utf8')) as Record<
  FloatDtype,
  { blocks: string; values: string }
>

test.each(Object.keys(blocks) as FloatDtype[])(
  "random blocks of %s are what Python's gguf makes of them, to the bit",
  (dtype) => {
    const bytes = new Uint8Array(Buffer.from(blocks[dtype].blocks, 'base64'))
    const want = Buffer.from(blocks[dtype].values, 'base64')
    const got = new Float32Array(want.length / 4)
    dequantise(dtype, bytes, got)
    expect(got).toEqual(new Float32Array(new Uint8Array(want).buffer))
    expect(Buffer.from(got.buffer).equals(want)).toBe(true)
  },
)

const smollm2 = testModel('SmolLM2-135M-Instruct.Q4_1.gguf')
test.skipIf(smollm2.missing)(
  "every tensor of SmolLM2-135M is what Python's gguf makes of it, to the bit",
  () => expectDigests(smollm2.path, 'gguf-smollm2.json'),
)
