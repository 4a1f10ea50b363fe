// Encoders against transformers and PEFT: hidden states, losses, every gradient. Fixtures by encoders.py.

import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import { encodeOnnx } from '../../src/engine/graph/onnx.ts'
import { trainedFeeds, trainedLayout } from '../../src/engine/models/trained.ts'
import { createSession } from '../../src/engine/runtime/session.ts'
import { type HostTensor, int64 } from '../../src/engine/tensor.ts'
import { encoderPass } from '../../src/engine/train/encoder-step.ts'
import { type MappedWeights, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { readFixture, readFixtureTensor, relativeError } from '../support/fixtures.ts'
import { suiteFolder } from '../support/temporary.ts'

const cache = suiteFolder()

interface Golden {
  examples: {
    tokens: number[]
    types: number[]
    label: number
    labels: number[]
    classes: number[]
  }[]
}

describe.each(['bert', 'distilbert', 'roberta'])('%s', (family) => {
  let weights: MappedWeights
  let golden: Golden

  beforeAll(async () => {
    const folder = fileURLToPath(new URL(`fixtures/encoders/${family}`, import.meta.url))
    weights = await mapWeights(await openCheckpoint(folder), cache)
    golden = await readFixture<Golden>(`encoders/${family}.json`)
  })

  test('hidden states are those of transformers, whatever else lies in the row', async () => {
    const T = 32
    const layout = trainedLayout(undefined, [])
    const { hidden } = encoderPass(weights, layout, { rows: 1, length: T })
    await using session = await createSession(encodeOnnx({ hidden }), { threads: 1 })
    const D = weights.config.hidden_size
    for (const [first, second] of [
      [0, 1],
      [2, 3],
      [5, 4],
    ] as const) {
      const texts = [golden.examples[first]!, golden.examples[second]!]
      const row = (of: (text: (typeof texts)[0], i: number) => number[]) => {
        const all = texts.flatMap(of)
        return int64([1, T], [...all, ...new Array<number>(T - all.length).fill(0)])
      }
      const feeds: Record<string, HostTensor> = {
        ...trainedFeeds(layout, new Float32Array(0)),
        tokens: row(({ tokens }) => tokens),
        positions: row(({ tokens }) => tokens.map((_, i) => i)),
        segments: row(({ tokens }, i) => tokens.map(() => i + 1)),
        ...(family === 'roberta' && { types: row(({ types }) => types.map(() => 0)) }),
        ...(family === 'bert' && { types: row(({ types }) => types) }),
      }
      const { hidden: got } = await session.run(feeds)
      let at = 0
      for (const [i, example] of [first, second].entries()) {
        const want = await readFixtureTensor(`encoders/${family}.safetensors`, `hidden.${example}`)
        const size = texts[i]!.tokens.length * D
        const part = (got!.data as Float32Array).subarray(at, at + size)
        expect(relativeError(part, want), `example ${example}`).toBeLessThan(1e-4)
        at += size
      }
    }
  })
})
