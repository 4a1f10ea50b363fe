import { expect, test } from 'vitest'
import { peakMemory } from '../../../../src/engine/train/memory.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { resolvePlan } from '../../../../src/engine/train/plan.ts'
import { chooseShape } from '../../../../src/engine/train/row-shape.ts'
import type { ModelConfig } from '../../../../src/engine/weights/checkpoint.ts'

const config: ModelConfig = {
  model_type: 'llama',
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 1,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  head_dim: 64,
  vocab_size: 1000,
  max_position_embeddings: 8192,
  norm_eps: 1e-5,
  tie_word_embeddings: true,
}
const smollm2 = { ...config, num_hidden_layers: 30, vocab_size: 49_152 }
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
    memory: 8e9,
  })

test('auto resolves by the size of the file, and says why', () => {
  expect(plan(10)).toMatchObject({ n_epochs: 10, batch_size: 4, total_steps: 30 })
  expect(plan(240)).toMatchObject({ n_epochs: 3, batch_size: 8, total_steps: 90 })
  expect(plan(20_000)).toMatchObject({ n_epochs: 1, batch_size: 32, total_steps: 625 })
  expect(plan(240).reasons).toEqual([
    expect.stringContaining('n_epochs 3'),
    expect.stringContaining('batch_size 8'),
    expect.stringContaining('learning_rate_multiplier 1'),
    expect.stringContaining('rank 8'),
    expect.stringContaining('precision fp32: the model is too small'),
  ])
})

test('what the owner sent is kept, and a rate of their own overrides the multiplier', () => {
  const sent = plan(100, {
    n_epochs: 2,
    batch_size: 16,
    learning_rate_multiplier: 2,
    precision: 'int8',
    lora: { rank: 4 },
  })
  expect(sent).toMatchObject({ n_epochs: 2, batch_size: 16, total_steps: 14, reasons: [] })
  expect(sent.precision).toBe('int8')
  expect(sent.learning_rate).toBeCloseTo(2 * plan(100).learning_rate, 12)
  expect(plan(100, { learning_rate: 1e-4 }).learning_rate).toBe(1e-4)
})

test('a head that starts from nothing gets updates enough, however few rows there are', () => {
  const encoder = { ...config, model_type: 'bert', encoder: {} } as unknown as ModelConfig
  const epochsOf = (examples: number) =>
    resolvePlan({
      method: { name: 'classification', baseLearningRate: () => 1e-3 },
      hyperparameters: { ...auto, lora: { rank: 8, target_modules: [] } },
      config: encoder,
      lengths: Array(examples).fill(20),
      longestValidation: 0,
      compute: { device: 'cpu', threads: 2 },
      memory: 8e9,
    })
  expect(epochsOf(40)).toMatchObject({ n_epochs: 12, batch_size: 4, total_steps: 120 })
  expect(epochsOf(40).reasons[0]).toContain('needs 120')
  expect(epochsOf(200).n_epochs).toBe(5)
  expect(epochsOf(2000).n_epochs).toBe(3)
})

test('the rank grows where there is more to learn than an adapter has room for', () => {
  const rankOf = (trained_tokens: number, rank?: 'auto' | number) =>
    resolvePlan({
      method: supervised,
      hyperparameters: { ...auto, ...(rank && { lora: { rank } }) },
      config: smollm2,
      lengths: [40, 40, 40],
      trained: [trained_tokens],
      longestValidation: 0,
      compute: { device: 'cpu', threads: 2 },
      memory: 64e9,
    }).lora
  // 305,280 parameters a rank.
  expect(rankOf(1e6)).toMatchObject({ rank: 8, alpha: 16 })
  expect(rankOf(4e6, 'auto')).toMatchObject({ rank: 16, alpha: 32 })
  expect(rankOf(1e9, 'auto').rank).toBe(64)
  expect(rankOf(1e9, 4).rank).toBe(4)
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
  expect(chooseShape(new Array<number>(8).fill(60), 8, { devices: 2 })).toEqual({
    rows: 4,
    length: 64,
  })
  expect(chooseShape([30], 8, { longest: 300 }).length).toBeGreaterThanOrEqual(300)
})

test('a micro-batch takes no longer by forecast than others can wait, where the longest example allows', () => {
  const paced = (lengths: number[], seconds: number) =>
    resolvePlan({
      method: supervised,
      hyperparameters: { ...auto, batch_size: 8, precision: 'int8' },
      config: smollm2,
      lengths,
      longestValidation: 0,
      compute: { device: 'cpu', threads: 2 },
      memory: 8e9,
      pace: { seconds, speeds: { int8: 0.004 } },
    })
  const short = new Array<number>(64).fill(60)
  const tokens = ({ rows, row_length }: { rows: number; row_length: number }) => rows * row_length
  expect(tokens(paced(short, 10))).toBe(512)
  const brief = paced(short, 0.3)
  expect(brief).toMatchObject({ rows: 4, row_length: 64 })
  expect(brief.reasons).toContainEqual(expect.stringMatching(/^micro-batches of 256 tokens: about/))
  expect(tokens(paced(short, 0.001))).toBe(64)
  expect(paced([...short, 500], 0.3)).toMatchObject({ rows: 1, row_length: 512 })
})

const long = (length: number, memory: number, precision: 'fp32' | 'int8' = 'int8') =>
  resolvePlan({
    method: supervised,
    hyperparameters: { ...auto, precision, max_sequence_length: 8192 },
    config: smollm2,
    lengths: [length, length],
    longestValidation: 0,
    compute: { device: 'cpu', threads: 2 },
    memory,
  })

test('what is kept of a step is what fits into memory, and the reason says so', () => {
  expect(long(1024, 16e9).keep).toBeUndefined()
  expect(long(1024, 16e9).reasons).not.toContainEqual(expect.stringContaining('memory'))
  expect(long(1024, 3e9).keep).toBe('products')
  const least = long(1024, 2.1e9)
  expect(least.keep).toBe('blocks')
  expect(least.reasons).toContainEqual(
    expect.stringMatching(/memory: 2.1 GB are free.*everything would take 3\.\d GB.*whole blocks/),
  )
  expect(() => long(1024, 1.9e9, 'fp32')).toThrow('Rows of 1024 tokens need about 2.1 GB')
})

const rank8 = {
  config: smollm2,
  parameters: 2_442_240,
  whole: false,
  reference: false,
} as const
const work = (rows: number, length: number, supervised: number) => ({
  groups: [{ rows, length }],
  microBatches: 1,
  supervised,
  mostSupervised: supervised,
})

test('several devices hold a step each', () => {
  const input = { ...rank8, keep: 'everything', precision: 'int8' } as const
  const one = peakMemory(input, work(1, 512, 512))
  expect(peakMemory({ ...input, devices: 2 }, work(1, 512, 512))).toBeGreaterThan(1.5 * one)
})

test('a job that fits in no way is refused with what it needs and what would fit', () => {
  const refusal = () => long(4096, 1.6e9)
  expect(refusal).toThrow(/Rows of 4096 tokens need about \d\.\d GB.*1\.6 GB are free/)
  expect(refusal).toThrow(/With max_sequence_length \d+ it would fit/)
  expect(() => long(256, 0.4e9)).toThrow('No length of rows would fit')
})

test('all weights that do not fit are refused, and an adapter is told of where it would fit', () => {
  const whole = (config: ModelConfig, memory: number, row = 128) =>
    resolvePlan({
      method: config.encoder
        ? { name: 'classification', baseLearningRate: () => 1e-4 }
        : supervised,
      hyperparameters: { ...auto, adapter: 'none', lora: { target_modules: [] } },
      config,
      lengths: [row, row],
      distinct: 1000,
      longestValidation: 0,
      compute: { device: 'cpu', threads: 2 },
      memory,
    })
  expect(whole(smollm2, 8e9).adapter).toBe('none')
  expect(() => whole(smollm2, 4e9)).toThrow(
    /All weights need about \d\.\d GB of memory, and 4\.0 GB are free\. With an adapter/,
  )
  expect(() => whole(smollm2, 0.4e9)).toThrow('No length of rows would fit')
  const minilm: ModelConfig = {
    ...config,
    model_type: 'bert',
    hidden_size: 384,
    num_hidden_layers: 6,
    num_attention_heads: 12,
    num_key_value_heads: 12,
    head_dim: 32,
    vocab_size: 30_522,
    max_position_embeddings: 512,
    encoder: { type_vocab_size: 2, position_offset: 0 },
  }
  expect(whole(minilm, 1.5e9, 512).row_length).toBe(512)
  expect(() => whole(minilm, 0.9e9, 512)).toThrow(/With max_sequence_length \d+ it would fit/)
})

test('the forecast is within 10 % of peaks measured on SmolLM2-135M', () => {
  const measured = [
    [1, 256, 1, 'everything', 'int8', 1032],
    [1, 256, 1, 'everything', 'fp32', 1275],
    [4, 128, 1, 'everything', 'int8', 1338],
    [8, 64, 0.25, 'everything', 'int8', 1203],
    [8, 64, 0.25, 'everything', 'fp32', 1412],
    [1, 512, 1, 'everything', 'int8', 1524],
    [1, 512, 0.25, 'everything', 'int8', 1410],
    [1, 512, 0.25, 'products', 'int8', 1350],
    [1, 512, 0.25, 'blocks', 'int8', 956],
    [1, 1024, 0.25, 'blocks', 'int8', 1210],
    [1, 1024, 1, 'blocks', 'int8', 1219],
    [1, 1024, 0.25, 'everything', 'int8', 2670],
    [1, 1024, 1, 'blocks', 'fp32', 1668],
    [1, 2048, 1, 'blocks', 'int8', 1732],
  ] as const
  for (const [rows, length, learned, keep, precision, megabytes] of measured) {
    const supervised = learned * rows * length
    const bytes = peakMemory({ ...rank8, keep, precision }, work(rows, length, supervised))
    const ratio = bytes / 2 ** 20 / megabytes
    expect(Math.abs(ratio - 1), `${rows}x${length} ${keep} ${precision}`).toBeLessThan(0.1)
  }
})
