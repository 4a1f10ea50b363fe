import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import { train } from '../../../../src/engine/train/loop.ts'
import { preferenceBatches } from '../../../../src/engine/train/preference-batch.ts'
import type { Plan, TrainEvent, TrainRequest } from '../../../../src/engine/train/request.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let request: TrainRequest
let plan: Plan

const answer = (content: string) => [{ role: 'assistant', content }]
const pairs = Array.from({ length: 14 }, (_, i) =>
  JSON.stringify({
    input: { messages: [{ role: 'user', content: `${i}?` }] },
    preferred_output: answer(i % 2 ? 'odd' : 'even'),
    non_preferred_output: answer('so what'),
  }),
).join('\n')

beforeAll(async () => {
  const model = await writeTinyModel(join(folder, 'tiny'), { chat: true })
  const training = { path: join(folder, 'train.jsonl') }
  await writeFile(training.path, pairs)
  const files = { model, training, validation: training, method: 'dpo' as const }
  const { plan: resolved } = await inspect({
    type: 'inspect',
    ...files,
    hyperparameters: {
      n_epochs: 2,
      batch_size: 6,
      learning_rate_multiplier: 'auto',
      learning_rate: 0.02,
      beta: 'auto',
      lora: { dropout: 0.1, use_dora: true },
    },
  })
  plan = resolved!
  request = { type: 'train', ...files, cache: join(folder, 'cache'), plan, seed: 5 }
})

async function collect(part: Partial<TrainRequest> = {}, stopAfter?: number) {
  const abort = new AbortController()
  const events: TrainEvent[] = []
  const turn = async () => ({ [Symbol.dispose]() {} })
  for await (const event of train({ ...request, ...part }, { signal: abort.signal, turn })) {
    events.push(event)
    if (event.type === 'step' && event.metrics.step === stopAfter) abort.abort()
  }
  return {
    steps: events.flatMap((e) => (e.type === 'step' ? [e.metrics] : [])),
    checkpoints: events.flatMap((e) => (e.type === 'checkpoint' ? [e] : [])),
    state: events.findLast((e) => e.type === 'state')!.state,
  }
}

test('auto beta is told with its reason', () => {
  expect(plan.beta).toBe(0.1)
  expect(plan.reasons).toContainEqual(expect.stringContaining('beta 0.1'))
})

test('it learns; a stop costs nothing, also where it went on from an adapter', async () => {
  const whole = await collect()
  const [first, last] = [whole.steps[0]!, whole.steps.at(-1)!]
  expect(first.train_loss).toBeCloseTo(Math.LN2, 4)
  expect(last.full_valid_rewards_accuracy).toBe(1)
  expect(last.full_valid_loss).toBeLessThan(0.6)
  const rest = await collect({ state: (await collect({}, 4)).state })
  expect(rest.steps).toEqual(whole.steps.slice(4))
  expect(rest.checkpoints.at(-1)).toEqual(whole.checkpoints.at(-1))

  const place = join(folder, 'initial')
  const initial = join(place, 'adapter_model.safetensors')
  const { adapter, adapter_config } = whole.checkpoints.at(-1)!
  await mkdir(place)
  await writeFile(initial, adapter)
  await writeFile(join(place, 'adapter_config.json'), adapter_config)
  // Measured without dropout: the reference is what it starts from.
  const on = await collect({ initial, plan: { ...plan, learning_rate: 1e-9 } })
  expect(on.steps.at(-1)!.full_valid_loss).toBeCloseTo(Math.LN2, 4)
  const more = await collect({ initial })
  expect(more.steps.at(-1)!.full_valid_loss).toBeLessThan(0.65)
  const later = await collect({ initial, state: (await collect({ initial }, 3)).state })
  expect(later.steps).toEqual(more.steps.slice(3))
})

test('it learns in int8 as well, policy and reference alike', async () => {
  const { steps } = await collect({ plan: { ...plan, precision: 'int8' } })
  expect(steps[0]!.train_loss).toBeCloseTo(Math.LN2, 2)
  expect(steps.at(-1)!.full_valid_rewards_accuracy).toBe(1)
})

test('pairs are packed with both texts in one row, and know their own tokens', () => {
  const pair = (tokens: number[], weights: number[], preferred: number) => ({
    line: 1,
    tokens: Int32Array.from(tokens),
    weights: Float32Array.from(weights),
    preferred,
  })
  const some = [
    pair([1, 2, 3, 1, 2, 4, 5], [0, 0, 1, 0, 0, 1, 1], 3),
    pair([1, 6, 7, 1, 8], [0, 1, 1, 0, 1], 3),
  ]
  const [batch, ...others] = preferenceBatches(some, { rows: 1, length: 12 })
  const one = batch!.feeds
  expect(others).toEqual([])
  const list = (name: string) => Array.from(one![name]!.data, Number)
  expect(list('tokens')).toEqual([1, 2, 3, 1, 2, 4, 5, 1, 6, 7, 1, 8])
  expect(list('positions')).toEqual([0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 0, 1])
  expect(list('segments')).toEqual([1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4])
  expect(list('targets')).toEqual([3, 4, 5, 6, 7, 8])
  expect(one!.preferred!.dims).toEqual([2, 6])
  expect(list('preferred')).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0])
  expect(list('other')).toEqual([0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1])
  expect(list('shares')).toEqual([0.5, 0.5])
  expect([...preferenceBatches(some, { rows: 1, length: 8 })]).toHaveLength(2)
})
