import { join } from 'node:path'
import { expect, test } from 'vitest'
import { initialAdapter, loraLayout } from '../../../../src/engine/models/adapters.ts'
import { withInt8 } from '../../../../src/engine/models/int8.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../../../src/engine/train/optimizer.ts'
import { createTrainer } from '../../../../src/engine/train/trainer.ts'
import { type MappedWeights, openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { familyOf } from '../../../../src/engine/weights/model-config.ts'
import { temporaryFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

/** The gradient of one example's loss, in an adapter whose B is not zero. */
async function gradientOf(weights: MappedWeights): Promise<Float32Array> {
  const target_modules = familyOf(weights.config).linear
  const layout = loraLayout(weights, { rank: 4, alpha: 8, target_modules })
  const adapter = initialAdapter(layout, 1).map((v, i) => v || Math.sin(i) * 0.05)
  await using trainer = await createTrainer(
    { step: 0, adapter, moments: createMoments(layout.parameters) },
    {
      objective: supervised.objective({ weights, layout, shape: { rows: 1, length: 64 } }),
      threads: 1,
      weightDecay: 0,
      maxGradNorm: 1,
      turn: async () => ({ [Symbol.dispose]() {} }),
    },
  )
  const tokens = Int32Array.from({ length: 60 }, (_, i) => (i * 37) % 250)
  const example = { line: 1, tokens, weights: new Float32Array(60).fill(1) }
  return (await trainer.gradient([example])).gradient
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)

test.each([
  ['mistral', { sliding_window: 8 }],
  ['qwen2', {}],
  ['qwen3', { head_dim: 16 }],
  ['gpt2', { n_embd: 32, n_layer: 2, n_head: 4, n_positions: 160 }],
])(
  'int8 reaches the products of %s, and the gradient keeps its way',
  async (model_type, fields) => {
    const folder = temporaryFolder()
    const path = await writeTinyModel(join(folder, 'tiny'), { config: { model_type, ...fields } })
    const checkpoint = await openCheckpoint(path)
    const weights = await mapWeights(checkpoint, folder)
    const exact = await gradientOf(weights)
    const close = await gradientOf(await withInt8(weights, folder, await openTokenizer(checkpoint)))
    const cosine = dot(exact, close) / Math.sqrt(dot(exact, exact) * dot(close, close))
    expect(cosine).toBeGreaterThan(0.99)
    // Exactly 1 would mean that float32 was computed with after all.
    expect(cosine).toBeLessThan(0.99999)
  },
)
