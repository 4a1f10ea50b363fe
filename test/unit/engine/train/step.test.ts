import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Example } from '../../../../src/engine/datasets/example.ts'
import { initialAdapter, loraLayout } from '../../../../src/engine/models/adapters.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../../../src/engine/train/optimizer.ts'
import { createTrainer } from '../../../../src/engine/train/trainer.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { temporaryFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const mistral = { model_type: 'mistral', architectures: ['MistralForCausalLM'], sliding_window: 20 }

test.each([
  ['the whole past is seen', {}],
  ['a window of it is', mistral],
])(
  'a long row, cut into stretches of queries, learns what short rows learn (%s)',
  async (_, config) => {
    const model = await writeTinyModel(join(temporaryFolder(), 'tiny'), { config })
    const weights = await mapWeights(await openCheckpoint(model), temporaryFolder())
    const layout = loraLayout(weights, {
      rank: 2,
      alpha: 4,
      target_modules: ['q_proj', 'k_proj', 'v_proj', 'down_proj'],
    })
    const adapter = initialAdapter(layout, 1).map((v, i) => v || Math.sin(i) / 10)
    const examples = Array.from({ length: 7 }, (_, e): Example => {
      const tokens = Int32Array.from({ length: 80 + e }, (_, i) => (i * 37 + e * 91) % 256)
      return { line: e + 1, tokens, weights: new Float32Array(tokens.length).fill(1, 1) }
    })
    const gradient = async (rows: number, length: number) => {
      await using trainer = await createTrainer(
        { step: 0, adapter: adapter.slice(), moments: createMoments(layout.parameters) },
        {
          objective: supervised.objective({ weights, layout, shape: { rows, length } }),
          threads: 1,
          weightDecay: 0,
          maxGradNorm: 1,
          turn: async () => ({ [Symbol.dispose]() {} }),
        },
      )
      return await trainer.gradient(examples)
    }
    const short = await gradient(1, 96)
    const long = await gradient(1, 608)
    expect(long.loss).toBeCloseTo(short.loss, 5)
    const most = short.gradient.reduce((m, g) => Math.max(m, Math.abs(g)), 0)
    for (const [i, g] of short.gradient.entries())
      expect(Math.abs(long.gradient[i]! - g)).toBeLessThan(1e-5 * most)
  },
)
