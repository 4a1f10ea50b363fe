import { expect, test } from 'vitest'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { chooseShape, resolvePlan } from '../../../../src/engine/train/plan.ts'
import type { ModelConfig } from '../../../../src/engine/weights/checkpoint.ts'

const config = {
  model_type: 'llama',
  hidden_size: 576,
  max_position_embeddings: 8192,
} as ModelConfig
const LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
const auto = { n_epochs: 'auto', batch_size: 'auto', learning_rate_multiplier: 'auto' } as const

const plan = (examples: number, hyperparameters: object = {}) =>
  resolvePlan({
    method: supervised,
    hyperparameters: { ...auto, ...hyperparameters },
    config,
    lengths: Array.from({ length: examples }, (_, i) => 40 + (i % 60)),
    longestValidation: 0,
    compute: { device: 'cpu', threads: 2 },
  })

test('auto resolves by the size of the file, and says why', () => {
  expect(plan(10)).toMatchObject({ n_epochs: 10, batch_size: 4, total_steps: 30 })
  expect(plan(240)).toMatchObject({ n_epochs: 3, batch_size: 8, total_steps: 90 })
  expect(plan(20_000)).toMatchObject({ n_epochs: 1, batch_size: 32, total_steps: 625 })
  expect(plan(240).reasons).toEqual([
    expect.stringContaining('n_epochs 3'),
    expect.stringContaining('batch_size 8'),
    expect.stringContaining('learning_rate_multiplier 1'),
    expect.stringContaining('precision fp32: the model is too small'),
  ])
})

test('what the owner sent is kept, and a rate of their own overrides the multiplier', () => {
  const sent = plan(100, {
    n_epochs: 2,
    batch_size: 16,
    learning_rate_multiplier: 2,
    precision: 'int8',
  })
  expect(sent).toMatchObject({ n_epochs: 2, batch_size: 16, total_steps: 14, reasons: [] })
  expect(sent.precision).toBe('int8')
  expect(sent.learning_rate).toBeCloseTo(2 * plan(100).learning_rate, 12)
  expect(plan(100, { learning_rate: 1e-4 }).learning_rate).toBe(1e-4)
})

test('adapters: all linear layers unless some are named, and only those that there are', () => {
  const { lora } = plan(10)
  expect(lora).toEqual({
    rank: 8,
    alpha: 16,
    target_modules: LINEAR,
    dropout: 0,
    use_rslora: false,
    use_dora: false,
  })
  expect(plan(10, { lora: { target_modules: 'all-linear' } }).lora).toEqual(lora)
  expect(plan(10, { lora: { target_modules: ['v_proj'] } }).lora.target_modules).toEqual(['v_proj'])
  expect(() => plan(10, { lora: { target_modules: ['q_proj', 'dense'] } })).toThrow(
    "The model has no linear layers 'dense'; it has q_proj, k_proj,",
  )
  const ranks = (lora: object) => [8, 64].map((rank) => plan(10, { lora: { rank, ...lora } }).lora)
  expect(ranks({}).map((l) => l.alpha)).toEqual([16, 128])
  expect(ranks({ use_rslora: true }).map((l) => l.alpha)).toEqual([16, 16])
})

test('a batch is never larger than the file', () => {
  expect(plan(10, { batch_size: 64 })).toMatchObject({ batch_size: 10 })
})

test('the shape holds the longest example and wastes little', () => {
  expect(chooseShape([30, 500, 40], 8).length).toBeGreaterThanOrEqual(500)
  const even = chooseShape(new Array<number>(64).fill(128), 8)
  expect((even.rows * even.length) % 128).toBe(0)
  expect(chooseShape([2000], 8)).toEqual({ rows: 1, length: 2048 })
  // Two devices want two micro-batches where one would take everything at once.
  expect(chooseShape(new Array<number>(8).fill(60), 8).rows).toBe(8)
  expect(chooseShape(new Array<number>(8).fill(60), 8, 0, 2)).toEqual({ rows: 4, length: 64 })
  expect(chooseShape([30], 8, 300).length).toBeGreaterThanOrEqual(300)
})
