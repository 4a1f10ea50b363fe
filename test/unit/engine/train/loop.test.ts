import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { TurnWish } from '../../../../src/engine/runtime/thread.ts'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import { train } from '../../../../src/engine/train/loop.ts'
import type {
  Plan,
  StepMetrics,
  TrainEvent,
  TrainRequest,
} from '../../../../src/engine/train/request.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let request: TrainRequest
let plan: Plan

const rows = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) =>
    JSON.stringify({ prompt: `${from + i} is `, completion: (from + i) % 2 ? 'odd' : 'even' }),
  ).join('\n')

beforeAll(async () => {
  const model = await writeTinyModel(join(folder, 'tiny'))
  const training = { path: join(folder, 'train.jsonl') }
  const validation = { path: join(folder, 'valid.jsonl') }
  await writeFile(training.path, rows(0, 22))
  await writeFile(validation.path, rows(50, 60))
  const inspection = await inspect({
    type: 'inspect',
    model,
    training,
    validation,
    method: 'supervised',
    hyperparameters: { n_epochs: 3, batch_size: 8, learning_rate_multiplier: 1 },
  })
  plan = inspection.plan!
  const cache = join(folder, 'cache')
  request = {
    type: 'train',
    model,
    cache,
    training,
    validation,
    method: 'supervised',
    plan,
    seed: 7,
  }
})

async function collect(
  part: Partial<TrainRequest> = {},
  stopAfter?: number,
): Promise<TrainEvent[]> {
  const abort = new AbortController()
  const events: TrainEvent[] = []
  const turn = async () => ({ [Symbol.dispose]() {} })
  for await (const event of train({ ...request, ...part }, { signal: abort.signal, turn })) {
    events.push(event)
    if (event.type === 'step' && event.metrics.step === stopAfter) abort.abort()
  }
  return events
}

const steps = (events: TrainEvent[]): StepMetrics[] =>
  events.flatMap((e) => (e.type === 'step' ? [e.metrics] : []))
const adapters = (events: TrainEvent[]): Uint8Array[] =>
  events.flatMap((e) => (e.type === 'checkpoint' ? [e.adapter] : []))

test('every step is told once, epochs end with a checkpoint, and it learns', async () => {
  const events = await collect()
  const all = steps(events)
  expect(all.map((m) => m.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
  expect(all.map((m) => m.epoch)).toEqual([1, 1, 1, 2, 2, 2, 3, 3, 3])
  expect(adapters(events)).toHaveLength(3)
  expect(all.filter((m) => m.full_valid_loss !== undefined).map((m) => m.step)).toEqual([3, 6, 9])
  expect(all[8]!.train_loss).toBeLessThan(all[0]!.train_loss)
  expect(events[0]).toEqual({ type: 'started', step: 0, total_steps: 9 })
  // 22 rows, each 'odd' or 'even' and the end of the sequence, three times.
  expect(events.at(-1)).toEqual({ type: 'done', step: 9, trained_tokens: 3 * (11 * 5 + 11 * 4) })
})

test.each([1, 4, 8])('stopped after step %i and gone on with: the same bytes', async (stop) => {
  const whole = await collect()
  const first = await collect({}, stop)
  const last = first.at(-1)!
  expect(last).toMatchObject({ type: 'state', step: stop })
  const rest = await collect({ state: (last as { state: Uint8Array }).state })
  expect([...steps(first), ...steps(rest)]).toEqual(steps(whole))
  expect(adapters(rest).at(-1)).toEqual(adapters(whole).at(-1))
})

test('with dropout, DoRA and LoRA+ too, a stop costs nothing', async () => {
  const lora = { ...plan.lora, dropout: 0.3, use_dora: true, use_rslora: true }
  const part = { plan: { ...plan, lora, loraplus_lr_ratio: 4 } }
  const whole = await collect(part)
  const { state } = (await collect(part, 4)).at(-1) as { state: Uint8Array }
  const rest = await collect({ ...part, state })
  expect(steps(rest)).toEqual(steps(whole).slice(4))
  expect(adapters(rest).at(-1)).toEqual(adapters(whole).at(-1))

  const first = (events: TrainEvent[]) => steps(events)[0]!
  const without = await collect({ plan: { ...part.plan, lora: { ...lora, dropout: 0 } } }, 1)
  // Nothing is dropped that has not begun to count: B is zero before the first update, its gradient is not.
  expect(first(whole).train_loss).toBeCloseTo(first(without).train_loss, 5)
  expect(first(whole).grad_norm).not.toBeCloseTo(first(without).grad_norm, 3)
})

test('keeping less of a step changes no byte of what is learned', async () => {
  const all = adapters(await collect())
  for (const keep of ['products', 'blocks'] as const)
    expect(adapters(await collect({ plan: { ...plan, keep } })), keep).toEqual(all)
})

describe('precision', () => {
  const own = (events: TrainEvent[]) => events.filter((e) => e.type === 'precision')

  test('auto is tried before the start, told once, and then trains as if it had been named', async () => {
    const events = await collect({ plan: { ...plan, precision: 'auto' } })
    const [choice] = own(events)
    expect(events[0]).toBe(choice)
    expect(own(events)).toHaveLength(1)
    if (choice?.type !== 'precision') throw new Error('nothing was chosen')
    expect(choice.reason).toMatch(/int8 is \d.* times as fast as fp32 here.*cosine of 0\.9|1\.0/)
    const { precision } = choice
    expect(adapters(events)).toEqual(adapters(await collect({ plan: { ...plan, precision } })))
  })

  test('int8 learns otherwise than fp32, but no worse, and a stop costs nothing', async () => {
    const int8 = { ...plan, precision: 'int8' } as const
    const events = await collect({ plan: int8 })
    expect(own(events)).toEqual([])
    const exact = await collect()
    expect(adapters(events)).not.toEqual(adapters(exact))
    const last = steps(events).at(-1)!.full_valid_loss!
    expect(last).toBeCloseTo(steps(exact).at(-1)!.full_valid_loss!, 1)

    const stopped = await collect({ plan: int8 }, 4)
    const state = stopped.findLast((e) => e.type === 'state')!.state
    expect(adapters(await collect({ plan: int8, state })).at(-1)).toEqual(adapters(events).at(-1))
  })
})

describe('on two devices of one thread', () => {
  const one = () => ({ ...plan, rows: 1, row_length: 64, threads: 1 })
  const two = () => ({ ...one(), devices: 2 })

  test('all bytes are those of one device that accumulates', async () => {
    const lora = { ...plan.lora, dropout: 0.3 }
    const alone = await collect({ plan: { ...one(), lora } })
    const together = await collect({ plan: { ...two(), lora } })
    expect(steps(together)).toEqual(steps(alone))
    expect(adapters(together)).toEqual(adapters(alone))
  })

  test('they compute at the same time, each in turns of its own', async () => {
    const held = [0, 0]
    let together = 0
    const turn = async ({ place = 0 }: TurnWish = {}) => {
      held[place]!++
      if (held[0]! > 0 && held[1]! > 0) together++
      return {
        [Symbol.dispose]() {
          held[place]!--
        },
      }
    }
    const { signal } = new AbortController()
    for await (const _ of train({ ...request, plan: two() }, { signal, turn }));
    expect(held).toEqual([0, 0])
    // 22 rows of at most 64 tokens in rows of 64: several micro-batches in each of 9 steps.
    expect(together).toBeGreaterThan(8)
  })

  test('a stop costs nothing', async () => {
    const whole = await collect({ plan: two() })
    const { state } = (await collect({ plan: two() }, 4)).at(-1) as { state: Uint8Array }
    const rest = await collect({ plan: two(), state })
    expect(steps(rest)).toEqual(steps(whole).slice(4))
    expect(adapters(rest).at(-1)).toEqual(adapters(whole).at(-1))
  })
})

test('what is stopped tells the adapter as it stands', async () => {
  const events = await collect({}, 3)
  const stopped = events.at(-2)!
  const [epochEnd] = adapters(events)
  expect(stopped).toMatchObject({ type: 'stopped', step: 3, adapter: epochEnd })
})

describe('from an adapter that was trained before', () => {
  const write = async (events: TrainEvent[]) => {
    const place = join(folder, 'initial')
    await mkdir(place, { recursive: true })
    const last = events.findLast((e) => e.type === 'checkpoint')!
    await writeFile(join(place, 'adapter_config.json'), last.adapter_config)
    await writeFile(join(place, 'adapter_model.safetensors'), last.adapter)
    return join(place, 'adapter_model.safetensors')
  }

  test('training starts at its loss, with fresh moments, and lowers it', async () => {
    const before = await collect()
    const initial = await write(before)
    const after = steps(await collect({ initial }))
    const full = (metrics: StepMetrics[]) => metrics.flatMap((m) => m.full_valid_loss ?? [])
    expect(after[0]!.train_loss).toBeLessThan(steps(before)[3]!.train_loss)
    expect(full(after).at(-1)).toBeLessThan(full(steps(before)).at(-1)!)
    expect(after.map((m) => m.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  test('a stop costs nothing: the state goes before the adapter it started from', async () => {
    const initial = await write(await collect())
    const whole = await collect({ initial })
    const first = await collect({ initial }, 4)
    const { state } = first.at(-1) as { state: Uint8Array }
    const rest = await collect({ initial, state })
    expect(adapters(rest).at(-1)).toEqual(adapters(whole).at(-1))
  })

  test('another rank or scale is refused', async () => {
    const initial = await write(await collect())
    const lora = { ...plan.lora, alpha: 3 }
    await expect(collect({ plan: { ...plan, lora }, initial })).rejects.toThrow('initial adapter:')
  })
})

test('a loss that is no number any more ends the training with advice', async () => {
  await expect(collect({ plan: { ...plan, learning_rate: 1e30 } })).rejects.toThrow(
    /^Training diverged at step [23]\b.*learning rate/,
  )
})

test('stopped while it validates, it ends before the rest of the rows, and validates again later', async () => {
  // The second turn after the third update is a micro-batch of the full validation.
  let turns = 0
  const abort = new AbortController()
  const first: TrainEvent[] = []
  const turn = async () => {
    if (first.filter((e) => e.type === 'step').length === 2 && ++turns === 2) abort.abort()
    return { [Symbol.dispose]() {} }
  }
  const small = { ...request, plan: { ...plan, rows: 1, row_length: 64 } }
  for await (const event of train(small, { signal: abort.signal, turn })) first.push(event)
  expect(first.at(-1)).toMatchObject({ type: 'state', step: 3 })
  expect(steps(first).at(-1)).toMatchObject({ step: 3 })
  expect(steps(first).at(-1)).not.toHaveProperty('full_valid_loss')
  const rest = await collect({
    plan: small.plan,
    state: (first.at(-1) as { state: Uint8Array }).state,
  })
  expect(steps(rest).map((m) => m.step)).toEqual([3, 4, 5, 6, 7, 8, 9])
  expect(steps(rest)[0]).toHaveProperty('full_valid_loss')
  expect(adapters(rest)).toHaveLength(3)
  expect(adapters(rest).at(-1)).toEqual(adapters(await collect({ plan: small.plan })).at(-1))
})

test('the loss of every row is told in every epoch, once, and is that of its steps', async () => {
  const told = (events: TrainEvent[]) => events.flatMap((e) => (e.type === 'state' ? e.losses : []))
  const events = await collect()
  for (const epoch of [1, 2, 3]) {
    const parts = told(events).filter((part) => part.epoch === epoch && part.lines.length > 0)
    const lines = parts.flatMap(({ lines }) => [...lines])
    expect(lines.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 22 }, (_, i) => i + 1))
    // 'odd' has 5 tokens with its end, 'even' 5 and 4: a step's loss is the mean over tokens.
    const losses = parts.flatMap((part) => [...part.losses])
    const tokens = lines.map((line) => (line % 2 ? 5 : 4))
    const own = steps(events).filter((m) => m.epoch === epoch)
    for (const [i, { train_loss }] of own.entries()) {
      const rows = [...lines.keys()].slice(i * 8, i * 8 + 8)
      const sum = rows.reduce((n, row) => n + losses[row]! * tokens[row]!, 0)
      const mean = sum / rows.reduce((n, row) => n + tokens[row]!, 0)
      expect(mean).toBeCloseTo(train_loss, 5)
    }
  }
  const first = await collect({}, 4)
  const { state } = first.at(-1) as { state: Uint8Array }
  const all = (parts: ReturnType<typeof told>) =>
    parts.flatMap(({ epoch, lines, losses }) =>
      [...lines].map((line, i) => [epoch, line, losses[i]]),
    )
  expect([...all(told(first)), ...all(told(await collect({ state })))]).toEqual(all(told(events)))
})

describe('early stopping', () => {
  // What is learned of these rows is wrong for the others: the validation loss soon rises.
  const swapped = rows(0, 22).replaceAll(/odd|even/g, (word) => (word === 'odd' ? 'even' : 'odd'))
  const part = async (): Promise<Partial<TrainRequest>> => {
    const validation = { path: join(folder, 'swapped.jsonl') }
    await writeFile(validation.path, swapped)
    const n_epochs = 12
    const longer = { n_epochs, total_steps: 3 * n_epochs, learning_rate: 0.02 }
    const early_stopping = { patience: 2, min_delta: 0 }
    return { validation, plan: { ...plan, ...longer, early_stopping } }
  }
  const kept = (events: TrainEvent[]) => events.flatMap((e) => (e.type === 'checkpoint' ? [e] : []))

  test('ends training where the validation loss has not fallen for so long', async () => {
    const events = await collect(await part())
    const losses = kept(events).map((e) => e.metrics.full_valid_loss!)
    expect(losses.length).toBeLessThan(12)
    const best = losses.indexOf(Math.min(...losses))
    expect(losses.length).toBe(best + 1 + 2)
    expect(kept(events).findLastIndex((e) => e.is_best)).toBe(best)
    const last = steps(events).at(-1)!
    expect(last.step).toBe(losses.length * 3)
    expect(last.total_steps).toBe(last.step)
    expect(events.at(-1)).toMatchObject({ type: 'done', step: last.step })
  })

  test('a stop costs nothing, even just before the end', async () => {
    const request = await part()
    const whole = await collect(request)
    const { step } = steps(whole).at(-1)!
    for (const stop of [step - 1, step]) {
      const { state } = (await collect(request, stop)).findLast((e) => e.type === 'state')!
      const rest = await collect({ ...request, state })
      expect(steps(rest)).toEqual(steps(whole).slice(stop))
      expect(rest.at(-1)).toEqual(whole.at(-1))
    }
  })
})

describe('with scores from outside', () => {
  /** Asks again at each epoch's end, with the score that it gets there. */
  const inLegs = async (request: Partial<TrainRequest>, scoreOf: (epoch: number) => number) => {
    const events: TrainEvent[] = []
    const scores: number[] = []
    for (let state: Uint8Array | undefined; ; ) {
      events.push(...(await collect({ ...request, scores, ...(state && { state }) })))
      const last = events.at(-1)!
      if (last.type !== 'unscored') return { events, scores }
      scores.push(scoreOf(scores.length))
      state = (events.findLast((e) => e.type === 'state') as { state: Uint8Array }).state
    }
  }
  const longer = { n_epochs: 6, total_steps: 18 }

  test('each epoch waits for its score, and what is learned is the same', async () => {
    const whole = await collect({ plan: { ...plan, ...longer } })
    const { events, scores } = await inLegs({ plan: { ...plan, ...longer } }, () => 0)
    expect(scores).toHaveLength(6)
    expect(adapters(events)).toEqual(adapters(whole))
    expect(steps(events)).toEqual(steps(whole))
    expect(events.at(-1)).toEqual(whole.at(-1))
  })

  test('training ends where the score has not risen for so long', async () => {
    const early_stopping = { patience: 2, min_delta: 0, metric: 'eval_score' as const }
    const told = [0.2, 0.5, 0.4, 0.5, 0.9, 0.9]
    const { events, scores } = await inLegs(
      { plan: { ...plan, ...longer, early_stopping } },
      (epoch) => told[epoch]!,
    )
    expect(scores).toEqual([0.2, 0.5, 0.4, 0.5])
    expect(events.at(-1)).toMatchObject({ type: 'done', step: 12 })
  })
})

test('another seed gives another adapter', async () => {
  const one = adapters(await collect()).at(-1)
  const other = adapters(await collect({ seed: 8 })).at(-1)
  expect(other).not.toEqual(one)
})

test('a state of another adapter is refused', async () => {
  const stopped = (await collect({}, 1)).at(-1) as { state: Uint8Array }
  const lora = { ...plan.lora, rank: 4 }
  await expect(collect({ plan: { ...plan, lora }, state: stopped.state })).rejects.toThrow(
    'training state:',
  )
})
