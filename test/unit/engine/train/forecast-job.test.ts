import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { input } from '../../../../src/engine/graph/graph.ts'
import * as op from '../../../../src/engine/graph/ops/ops.ts'
import { forecastJob, forecastStep } from '../../../../src/engine/train/forecast-job.ts'
import { workOf } from '../../../../src/engine/train/graph-work.ts'
import { methodOf } from '../../../../src/engine/train/methods/index.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { resolvePlan } from '../../../../src/engine/train/plan.ts'
import { throughputOf } from '../../../../src/engine/train/throughput.ts'
import type { ModelConfig } from '../../../../src/engine/weights/checkpoint.ts'

const config: ModelConfig = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  vocab_size: 500,
  max_position_embeddings: 2048,
  norm_eps: 1e-5,
  tie_word_embeddings: true,
}
const throughput = { fp32: 4e11, int8: 1e12, batched: 3e11, bytes: 1e11, nodes: 6e6 }
const lengths = new Array<number>(64).fill(60)
const planOf = (hyperparameters: object = {}) =>
  resolvePlan({
    method: supervised,
    hyperparameters: {
      n_epochs: 2,
      batch_size: 8,
      learning_rate_multiplier: 1,
      ...hyperparameters,
    },
    config,
    lengths,
    longestValidation: 0,
    compute: { device: 'cpu', threads: 2 },
    memory: 8e9,
  })

test('work is counted from shapes: products by kind, a chunk of supervised tokens as what it holds', () => {
  const x = input('x', 'float32', [10, 20])
  const y = op.linear(x, input('w', 'float32', [30, 20]))
  const some = op.mul(input('s', 'float32', ['S.1', 5]), input('t', 'float32', ['S.1', 5]))
  const work = workOf({ y, some }, { supervised: 300 })
  expect(work).toMatchObject({ fp32: 2 * 10 * 20 * 30, int8: 0, batched: 0, nodes: 2 })
  expect(work.bytes).toBe(3 * 4 * 44 * 5) // 300 tokens leave 44 to the second chunk
})

test('a job is forecast from its plan: twice the steps take twice the time, int8 products are told from float32 ones', () => {
  const plan = planOf({ precision: 'int8' })
  const job = { method: supervised, config, lengths, trained_tokens: 1920, throughput }
  const forecast = forecastJob({ ...job, plan })
  expect(forecast.precision).toBe('int8')
  expect(forecast.seconds).toBeCloseTo(16 * forecast.step_seconds, 9)
  expect(
    forecastJob({ ...job, plan: { ...plan, precision: 'auto' } }).step_seconds,
  ).toBeLessThanOrEqual(forecast.step_seconds)
  const slow = forecastJob({ ...job, plan, throughput: { ...throughput, int8: 1e9 } })
  expect(slow.step_seconds).toBeGreaterThan(2 * forecast.step_seconds)
})

test('every method is forecast by its own graph: the reference pass of dpo costs time and memory', () => {
  const plan = { ...planOf({ precision: 'fp32' }), beta: 0.1 }
  const step = (name: 'supervised' | 'dpo') =>
    forecastStep({
      method: methodOf(name),
      config,
      plan,
      precision: 'fp32',
      supervised: 30,
      pairs: 4,
      throughput,
    })
  expect(step('dpo').run_seconds).toBeGreaterThan(1.2 * step('supervised').run_seconds)
  expect(step('dpo').peak_memory).toBeGreaterThan(step('supervised').peak_memory)
})

test("the machine's speed is measured once and kept", async () => {
  const cache = await mkdtemp(join(tmpdir(), 'luthier-throughput-'))
  try {
    const compute = { device: 'cpu' as const, threads: 1 }
    const first = await throughputOf(compute, cache)
    for (const rate of Object.values(first)) expect(rate).toBeGreaterThan(0)
    const [name] = await readdir(cache)
    expect(JSON.parse(await readFile(join(cache, name!), 'utf8'))).toEqual(first)
    expect(await throughputOf(compute, cache)).toEqual(first)
  } finally {
    await rm(cache, { recursive: true })
  }
})
