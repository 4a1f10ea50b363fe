// Direct preference optimization on stories260k against plain PyTorch. Fixtures by dpo.py.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PreferenceExample } from '../../src/engine/datasets/preference-example.ts'
import { type LoraLayout, loraLayout } from '../../src/engine/models/adapters.ts'
import { dpo } from '../../src/engine/train/methods/dpo.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import type { Plan } from '../../src/engine/train/request.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { type MappedWeights, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { readFixture, readFlat, relativeError } from '../support/fixtures.ts'
import { shared } from '../support/shared.ts'

const model = shared('models/stories260k')

interface Text {
  tokens: number[]
  weights: number[]
}
interface Golden {
  beta: number
  rank: number
  alpha: number
  target_modules: string[]
  pairs: { preferred: Text; other: Text }[]
  gradients: { pairs: number[]; loss: number; margin: number }
  steps: {
    loss: number
    chosen: number
    rejected: number
    margin: number
    accuracy: number
    closest: number
  }[]
}

describe.skipIf(model.missing)('dpo', () => {
  let cache: string
  let weights: MappedWeights
  let layout: LoraLayout
  let golden: Golden

  beforeAll(async () => {
    cache = await mkdtemp(join(tmpdir(), 'luthier-golden-'))
    weights = await mapWeights(await openCheckpoint(model.path), cache)
    golden = await readFixture<Golden>('dpo.json')
    layout = loraLayout(weights, golden)
  })
  afterAll(() => rm(cache, { recursive: true }))

  const trainer = (
    flat: Float32Array,
    shape: { rows: number; length: number },
    initial?: Float32Array,
    weightDecay = 0,
  ) =>
    createTrainer(
      { step: 0, adapter: flat, moments: createMoments(layout.parameters) },
      {
        objective: dpo.objective({
          weights,
          layout,
          shape,
          plan: { beta: golden.beta } as Plan,
          initial: initial && (async () => initial),
        }),
        threads: 1,
        weightDecay,
        maxGradNorm: 1,
        turn: async () => ({ [Symbol.dispose]() {} }),
      },
    )

  const pair = (i: number): PreferenceExample => {
    const { preferred, other } = golden.pairs[i]!
    return {
      line: i + 1,
      tokens: Int32Array.from([...preferred.tokens, ...other.tokens]),
      weights: Float32Array.from([...preferred.weights, ...other.weights]),
      preferred: preferred.tokens.length,
    }
  }
  const adapter = () => readFlat('adapters.rslora/adapter_model.safetensors', layout)

  test('every gradient, three pairs in one row', async () => {
    await using t = await trainer(await adapter(), { rows: 1, length: 256 })
    const { pairs, loss, margin } = golden.gradients
    const got = await t.gradient(pairs.map(pair))
    expect(got.loss).toBeCloseTo(loss, 5)
    expect(got.scores.rewards_margin).toBeCloseTo(margin, 4)
    const want = await readFlat('dpo.gradients.safetensors', layout)
    for (const m of layout.modules)
      for (const [from, to] of [
        [m.a, m.b],
        [m.b, m.b + m.out * layout.config.rank],
      ] as const)
        expect(
          relativeError(got.gradient.subarray(from, to), want.subarray(from, to)),
          m.name,
        ).toBeLessThan(1e-4)
  })

  test.each([
    [1, 256],
    [2, 80],
  ])('twenty steps: losses and rewards of PyTorch, in %i rows of %i', async (rows, length) => {
    const { weight_decay, batches, steps } = await readFixture<{
      weight_decay: number
      batches: number[][]
      steps: { learning_rate: number }[]
    }>('stories260k.training.json')
    const flat = await readFlat('adapters.initial.safetensors', layout)
    await using t = await trainer(flat, { rows, length }, undefined, weight_decay)
    for (const [i, want] of golden.steps.entries()) {
      const { loss, scores } = await t.step(batches[i]!.map(pair), steps[i]!.learning_rate)
      const off = (got: number | undefined, expected: number) => Math.abs(got! - expected)
      expect(off(loss, want.loss) / want.loss, `step ${i + 1}`).toBeLessThan(1e-3)
      expect(off(scores.rewards_chosen, want.chosen)).toBeLessThan(1e-3)
      expect(off(scores.rewards_rejected, want.rejected)).toBeLessThan(1e-3)
      expect(off(scores.rewards_margin, want.margin)).toBeLessThan(1e-3)
      // Which of two equal rewards is the greater is for rounding to say.
      if (want.closest > 1e-4) expect(scores.rewards_accuracy).toBe(want.accuracy)
    }
  })

  test('an adapter that training starts from is the reference itself', async () => {
    const initial = await adapter()
    await using t = await trainer(initial.slice(), { rows: 1, length: 256 }, initial)
    const { loss, scores } = await t.step([0, 1, 2].map(pair), 1e-2)
    expect(loss).toBeCloseTo(Math.LN2, 5)
    expect(scores.rewards_margin).toBeCloseTo(0, 5)
    const after = await t.evaluate([0, 1, 2].map(pair))
    expect(after!.scores.rewards_margin).toBeGreaterThan(0.01)
  })
})
