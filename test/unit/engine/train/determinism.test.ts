// The same request gives the same bytes, in the thread that jobs train in: twice, and from any step on.

import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { spawn, type Thread } from '../../../../src/engine/runtime/thread.ts'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import type {
  Hyperparameters,
  TrainEvent,
  TrainRequest,
  TrainThreadRequest,
} from '../../../../src/engine/train/request.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
const entry = new URL('../../../../src/engine/train/worker.ts', import.meta.url)
const training = { path: join(folder, 'train.jsonl') }
const validation = { path: join(folder, 'valid.jsonl') }
let model: string

beforeAll(async () => {
  // Large enough that the runtime shares its products out among its threads.
  const config = { hidden_size: 128, intermediate_size: 384 }
  model = await writeTinyModel(join(folder, 'tiny'), { config })
  const rows = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) =>
      JSON.stringify({ prompt: `${from + i} is `, completion: i % 2 ? 'odd' : 'even' }),
    ).join('\n')
  await writeFile(training.path, rows(0, 24))
  await writeFile(validation.path, rows(24, 32))
})

async function requestFor(threads: number, own: Partial<Hyperparameters>): Promise<TrainRequest> {
  const common = { model, training, validation, method: 'supervised' as const }
  const hyperparameters = { n_epochs: 2, batch_size: 8, learning_rate_multiplier: 1, ...own }
  const compute = { device: 'cpu' as const, threads }
  const { plan } = await inspect({ type: 'inspect', ...common, hyperparameters, compute })
  return { type: 'train', ...common, cache: join(folder, 'cache'), plan: plan!, seed: 7 }
}

const start = () => spawn<TrainThreadRequest, TrainEvent>(entry)

/** All that a run says, stopped after a step where one is named. */
async function run(
  thread: Thread<TrainThreadRequest, TrainEvent>,
  request: TrainRequest,
  stopAfter?: number,
): Promise<TrainEvent[]> {
  const abort = new AbortController()
  const events: TrainEvent[] = []
  for await (const event of thread.run(request, abort.signal)) {
    events.push(event)
    if (event.type === 'step' && event.metrics.step === stopAfter) abort.abort()
  }
  return events
}

/** States are kept when time has passed, which is nothing of what is computed. */
const computed = (events: readonly TrainEvent[]) =>
  events.flatMap((event): object[] => {
    if (event.type === 'step' || event.type === 'done') return [event]
    if (event.type !== 'checkpoint') return []
    return [{ ...event, adapter: createHash('sha256').update(event.adapter).digest('hex') }]
  })
const stepsOf = (events: readonly TrainEvent[]) =>
  events.flatMap((e) => (e.type === 'step' ? [e.metrics.step] : []))
const stateOf = (events: readonly TrainEvent[]) => {
  const last = events.at(-1)
  if (last?.type !== 'state') throw new Error(`It ended with ${last?.type}.`)
  return last
}

describe.each<[string, number, Partial<Hyperparameters>]>([
  ['one thread, LoRA with dropout', 1, { lora: { dropout: 0.3 } }],
  ['two threads, LoRA with dropout', 2, { lora: { dropout: 0.3 } }],
  ['two threads, int8', 2, { precision: 'int8' }],
  ['two threads, all weights', 2, { adapter: 'none', learning_rate: 1e-3 }],
])('%s', (_, threads, own) => {
  test('the same bytes again, and from any step on', { timeout: 120_000 }, async () => {
    const request = await requestFor(threads, own)
    await using thread = start()
    const whole = await run(thread, request)
    expect(stepsOf(whole)).toEqual([1, 2, 3, 4, 5, 6])
    // Starting a thread takes longer than what is trained here: one more does for all that follows.
    await using other = start()
    expect(computed(await run(other, request))).toEqual(computed(whole))

    for (const step of [1, 2, 3, 4, 5]) {
      const stopped = stateOf(await run(other, request, step))
      // The thread may have begun the next step before it heard of the stop.
      expect([step, step + 1]).toContain(stopped.step)
      const events = await run(other, { ...request, state: stopped.state })
      const rest = computed(events)
      expect(rest).toEqual(computed(whole).slice(-rest.length))
      // A step whose validation was interrupted comes again.
      expect([stopped.step, stopped.step + 1]).toContain(stepsOf(events)[0])
    }
  })
})

test('another seed trains other bytes', async () => {
  const request = await requestFor(1, {})
  await using thread = start()
  const eighth = computed(await run(thread, { ...request, seed: 8 }))
  expect(eighth).not.toEqual(computed(await run(thread, request)))
})
