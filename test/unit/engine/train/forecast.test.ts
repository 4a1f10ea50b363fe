import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { evaluationCost, stepCost } from '../../../../src/engine/train/cost.ts'
import { forecastOf } from '../../../../src/engine/train/forecast.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { resolvePlan, trainedParameters } from '../../../../src/engine/train/plan.ts'
import { keepThroughput, knownThroughput } from '../../../../src/engine/train/throughput.ts'
import { workloadOf } from '../../../../src/engine/train/workload.ts'
import { type Checkpoint, openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

let folder = ''
let checkpoint: Checkpoint
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-forecast-'))
  checkpoint = await openCheckpoint(await writeTinyModel(join(folder, 'tiny')))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const sizes = { lengths: [30, 20, 10, 60, 5, 5], trained: [10, 10, 5, 6, 1, 1] }
const planOf = (changes: object = {}) =>
  resolvePlan({
    method: supervised,
    hyperparameters: {
      n_epochs: 2,
      batch_size: 3,
      learning_rate_multiplier: 1,
      precision: 'fp32',
      ...changes,
    },
    config: checkpoint.config,
    ...sizes,
    longestValidation: 0,
    compute: { device: 'cpu', threads: 1 },
    memory: 8e9,
  })

test('a workload counts micro-batches and what is learned in each', () => {
  const shape = { rows: 1, row_length: 64, batch_size: 3 }
  // 30 + 20 + 10 share a row; 60 and twice 5 do not: 60 + 5 is one too many.
  expect(workloadOf(shape, checkpoint.config, sizes)).toEqual({
    groups: [{ rows: 1, length: 64 }],
    microBatches: 1.5,
    supervised: 11,
    mostSupervised: 25,
  })
})

test('what is computed twice, learned besides or compared costs more', () => {
  const { config } = checkpoint
  const plan = planOf()
  const work = workloadOf(plan, config, sizes)
  const costed = {
    config,
    parameters: trainedParameters(config, plan.lora),
    precision: 'fp32',
    reference: false,
  } as const
  const plain = stepCost(costed, work)
  expect(stepCost({ ...costed, precision: 'int8' }, work)).toBeLessThan(plain)
  expect(stepCost({ ...costed, keep: 'products' }, work)).toBeGreaterThan(plain)
  expect(stepCost({ ...costed, keep: 'blocks' }, work)).toBeGreaterThan(
    stepCost({ ...costed, keep: 'products' }, work),
  )
  expect(stepCost({ ...costed, reference: true }, work)).toBeGreaterThan(plain)
  expect(stepCost({ ...costed, parameters: 1e6 * costed.parameters }, work)).toBeGreaterThan(plain)
  expect(stepCost(costed, { ...work, supervised: 10 * work.supervised })).toBeGreaterThan(plain)
  expect(stepCost({ ...costed, devices: 2 }, { ...work, microBatches: 4 })).toBeLessThan(
    stepCost(costed, { ...work, microBatches: 4 }),
  )
  expect(evaluationCost(costed, work)).toBeLessThan(plain / 2)
})

test('time is forecast from a speed that is measured once and kept', async () => {
  const plan = planOf()
  const cache = join(folder, 'cache')
  const input = {
    checkpoint,
    cache,
    plan,
    parameters: trainedParameters(checkpoint.config, plan.lora),
    reference: false,
    training: sizes,
    validation: undefined,
  }
  let turns = 0
  const turn = async () => {
    turns++
    return { [Symbol.dispose]() {} }
  }
  const unknown = await forecastOf({ ...input, measure: false }, turn)
  expect(unknown).toMatchObject({ step_seconds: null, seconds: null })
  expect(turns).toBe(0)
  const measured = await forecastOf({ ...input, measure: true }, turn)
  expect(turns).toBe(3)
  expect(measured.seconds).toBeCloseTo(plan.total_steps * measured.step_seconds!, 9)
  expect(await forecastOf({ ...input, measure: false }, turn)).toEqual(measured)
  expect(await forecastOf({ ...input, measure: true }, turn)).toEqual(measured)
  expect(turns).toBe(3)

  // Twice as slow, twice as long; validation comes on top.
  const of = { checkpoint, cache, plan, precision: 'fp32' } as const
  const { seconds, paced } = (await knownThroughput(of))!
  expect(paced).toBe(seconds)
  // Micro-batches are cut by what was measured first, until it is far off: equal jobs get equal plans.
  await keepThroughput(of, 1.2 * seconds, 1)
  expect(await knownThroughput(of)).toEqual({ seconds: 1.2 * seconds, paced: seconds })
  await keepThroughput(of, 2 * seconds, 1)
  expect((await knownThroughput(of))!.paced).toBe(2 * seconds)
  const slower = await forecastOf({ ...input, measure: false }, turn)
  expect(slower.seconds).toBeCloseTo(2 * measured.seconds!, 9)
  const checked = await forecastOf({ ...input, validation: sizes, measure: false }, turn)
  expect(checked.seconds).toBeGreaterThan(slower.seconds!)
  expect((await readdir(cache)).filter((name) => name.endsWith('.tmp'))).toEqual([])
})
