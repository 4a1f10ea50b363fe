// all-MiniLM-L6-v2's vectors against transformers, through the inference thread's own encoders. Fixture by minilm.py.

import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { EncodeRequest } from '../../src/engine/infer/encode-request.ts'
import { Encoders } from '../../src/engine/infer/encoders.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { readFixture, readFixtureTensor } from '../support/fixtures.ts'
import { testModel } from '../support/shared.ts'

const model = testModel('all-MiniLM-L6-v2')
const WIDTH = 384

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0)
const cosine = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))

describe.skipIf(model.missing)('all-MiniLM-L6-v2', () => {
  let texts: string[]
  let tokens: number[]
  let expected: Float32Array[]
  let encode: (input: EncodeRequest['input'], dimensions?: number) => Promise<number[][]>

  beforeAll(async () => {
    const fixture = await readFixture<{ texts: string[]; tokens: number[] }>('minilm.json')
    texts = fixture.texts
    tokens = fixture.tokens
    const all = await readFixtureTensor('minilm.safetensors', 'vectors')
    expected = texts.map((_, i) => all.subarray(i * WIDTH, (i + 1) * WIDTH))
    const cache = join(dirname(model.path), 'converted')
    await mkdir(cache, { recursive: true })
    const encoders = new Encoders(2)
    const turn = async () => ({ [Symbol.dispose]() {} })
    const context = { turn, signal: new AbortController().signal }
    encode = async (input, dimensions) => {
      const { results } = await encoders.encode(
        {
          type: 'encode',
          target: { model: model.path, cache },
          task: 'embedding',
          input,
          ...(dimensions && { dimensions }),
        },
        context,
      )
      return results.map((one) => (one.type === 'embedding' ? one.vector : []))
    }
  }, 60_000)

  test('200 texts, packed together: each vector is that of transformers, cosine ≥ 0.9999', async () => {
    expect(texts).toHaveLength(200)
    const vectors = await encode(texts)
    const worst = Math.min(...vectors.map((vector, i) => cosine(vector, expected[i]!)))
    console.log(`least cosine ${worst}`)
    expect(worst).toBeGreaterThan(0.9999)
    for (const vector of vectors) expect(dot(vector, vector)).toBeCloseTo(1, 5)
  })

  test('texts have as many tokens, and their ids give the same vectors', async () => {
    const tokenizer = await openTokenizer(await openCheckpoint(model.path))
    const ids = texts.map((text) => [...tokenizer.encodeTexts(text, undefined, 512).ids])
    expect(ids.map(({ length }) => length)).toEqual(tokens)
    const some = ids.filter((_, i) => i % 9 === 0)
    const vectors = await encode(some)
    const of = expected.filter((_, i) => i % 9 === 0)
    for (const [i, vector] of vectors.entries())
      expect(cosine(vector, of[i]!)).toBeGreaterThan(0.9999)
  })

  test('fewer dimensions are the first of them, of length 1 again', async () => {
    const [vector] = await encode([texts[0]!], 64)
    expect(vector).toHaveLength(64)
    expect(dot(vector!, vector!)).toBeCloseTo(1, 5)
    expect(cosine(vector!, expected[0]!.subarray(0, 64))).toBeGreaterThan(0.9999)
  })
})
