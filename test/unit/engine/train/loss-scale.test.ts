// Products in float16 with a scaled loss, computed by the processor: it rounds and overflows as any other device does.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import { train } from '../../../../src/engine/train/loop.ts'
import {
  afterGoodStep,
  afterOverflow,
  freshScale,
  type LossScale,
  unscale,
} from '../../../../src/engine/train/loss-scale.ts'
import type { MethodName } from '../../../../src/engine/train/methods/index.ts'
import type { StepMetrics, TrainEvent, TrainRequest } from '../../../../src/engine/train/request.ts'
import { decodeState, encodeState } from '../../../../src/engine/train/save.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

test('the scale doubles after 2,000 good steps, and halves at once', () => {
  let at: LossScale = freshScale
  for (let step = 0; step < 1999; step++) at = afterGoodStep(at)
  expect(at.scale).toBe(freshScale.scale)
  at = afterGoodStep(at)
  expect(at).toEqual({ scale: 2 * freshScale.scale, steps: 0, skipped: 0 })
  expect(afterOverflow(at)).toEqual({ scale: freshScale.scale, steps: 0, skipped: 1 })
  expect(afterOverflow({ scale: 1, steps: 9, skipped: 3 })).toBe(undefined)
})

test('unscaling is exact, and finds what is not finite', () => {
  const scale = { scale: 1024, steps: 0, skipped: 0 }
  const gradient = Float32Array.of(3 * 1024, -0.7 * 1024, 0)
  expect(unscale(gradient, scale)).toBe(true)
  expect(gradient).toEqual(Float32Array.of(3, Math.fround(-0.7 * 1024) / 1024, 0))
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
    expect(unscale(Float32Array.of(1, bad, 2), scale)).toBe(false)
})

const folder = suiteFolder()
let model = ''
beforeAll(async () => {
  model = await writeTinyModel(join(folder, 'tiny'), { chat: true })
})

async function requestOf(method: MethodName, rows: object[]): Promise<TrainRequest> {
  const training = { path: join(folder, `${method}.jsonl`) }
  await writeFile(training.path, rows.map((row) => JSON.stringify(row)).join('\n'))
  const { plan } = await inspect({
    type: 'inspect',
    model,
    training,
    method,
    hyperparameters: { n_epochs: 2, batch_size: 4, learning_rate_multiplier: 1 },
  })
  const cache = join(folder, 'cache')
  return { type: 'train', model, cache, training, method, plan: plan!, seed: 7 }
}

const supervised = () =>
  requestOf(
    'supervised',
    Array.from({ length: 32 }, (_, i) => ({
      prompt: `${i} is `,
      completion: i % 2 ? 'odd' : 'even',
    })),
  )

async function collect(
  request: TrainRequest,
  precision: 'fp16' | 'fp32',
  { state, stopAfter }: { state?: Uint8Array; stopAfter?: number } = {},
) {
  const abort = new AbortController()
  const turn = async () => ({ [Symbol.dispose]() {} })
  const events: TrainEvent[] = []
  const plan = { ...request.plan, precision }
  const given = { ...request, plan, ...(state && { state }) }
  for await (const event of train(given, { signal: abort.signal, turn })) {
    events.push(event)
    if (event.type === 'step' && event.metrics.step === stopAfter) abort.abort()
  }
  return {
    steps: events.flatMap((e): StepMetrics[] => (e.type === 'step' ? [e.metrics] : [])),
    adapter: events.findLast((e) => e.type === 'checkpoint')?.adapter,
    state: events.findLast((e) => e.type === 'state')!.state,
  }
}

/** The state after a step, with another scale or with none. */
async function stateOf(request: TrainRequest, loss_scale?: LossScale): Promise<Uint8Array> {
  const { state } = await collect(request, 'fp16', { stopAfter: 1 })
  const { parameters } = JSON.parse(headerOf(state))
  const saved = decodeState(state, parameters)
  const { loss_scale: _, ...rest } = saved.state
  return encodeState({ ...saved, state: { ...rest, ...(loss_scale && { loss_scale }) } })
}
const headerOf = (state: Uint8Array) => new TextDecoder().decode(state.slice(0, state.indexOf(10)))

/** One that the gradients of a tiny model bear, and one that they do not. */
const borne: LossScale = { scale: 256, steps: 0, skipped: 0 }
const tooLarge: LossScale = { scale: 2 ** 23, steps: 5, skipped: 0 }

async function expectNearly(request: TrainRequest) {
  const half = await collect(request, 'fp16', { state: await stateOf(request, borne) })
  const exact = await collect(request, 'fp32', { state: await stateOf(request) })
  expect(half.steps.length).toBeGreaterThan(4)
  expect(half.adapter).not.toEqual(exact.adapter)
  for (const [i, { train_loss, grad_norm, loss_scale }] of half.steps.entries()) {
    const want = exact.steps[i]!
    // Eleven bits at first; what is learned from them is another model, and more so with every step.
    expect(Math.abs(train_loss / want.train_loss - 1)).toBeLessThan(i === 0 ? 2e-3 : 0.05)
    expect(Math.abs(grad_norm / want.grad_norm - 1)).toBeLessThan(i === 0 ? 1e-2 : 0.25)
    expect([loss_scale, want.loss_scale]).toEqual([256, undefined])
  }
}

test('a job learns in float16 what it learns in float32, nearly', async () => {
  await expectNearly(await supervised())
})

test('a fresh job begins at 65,536, and comes to a scale that its gradients bear', async () => {
  const { steps } = await collect(await supervised(), 'fp16')
  const learned = steps.filter(({ grad_norm }) => grad_norm > 0)
  expect(steps[0]!.loss_scale).toBe(learned[0] === steps[0] ? 2 ** 16 : 2 ** 15)
  expect(learned.length).toBeGreaterThan(steps.length / 2)
  expect(learned.at(-1)!.train_loss).toBeLessThan(0.7 * steps[0]!.train_loss)
})

test('a step whose gradient overflows is left out and the scale halved, until it fits', async () => {
  const request = await supervised()
  const from = await stateOf(request, tooLarge)
  const { steps, state } = await collect(request, 'fp16', { state: from })
  const skipped = steps.findIndex(({ grad_norm }) => grad_norm > 0)
  expect(skipped).toBeGreaterThan(1)
  for (const [i, { loss_scale, train_loss }] of steps.slice(0, skipped).entries()) {
    expect(loss_scale).toBe(tooLarge.scale / 2 ** (i + 1))
    expect(train_loss).toBeGreaterThan(0)
  }
  const { loss_scale } = JSON.parse(headerOf(state))
  expect(loss_scale.skipped).toBe(steps.filter(({ grad_norm }) => grad_norm === 0).length)
  expect(loss_scale.scale).toBe(tooLarge.scale / 2 ** loss_scale.skipped)

  // Nothing of the steps that were left out came into the adapter or its moments.
  const { parameters } = JSON.parse(headerOf(from))
  const before = decodeState(from, parameters).state
  const stop = 1 + skipped
  const after = decodeState(
    (await collect(request, 'fp16', { state: from, stopAfter: stop })).state,
    parameters,
  ).state
  expect(after.step).toBe(stop)
  expect(after.adapter).toEqual(before.adapter)
  expect(after.moments).toEqual(before.moments)
})

test.each([1, 2, 12])(
  'stopped %i steps after an overflow and gone on with: the same bytes',
  async (more) => {
    const request = await supervised()
    const from = await stateOf(request, tooLarge)
    const whole = await collect(request, 'fp16', { state: from })
    const first = await collect(request, 'fp16', { state: from, stopAfter: 1 + more })
    const rest = await collect(request, 'fp16', { state: first.state })
    expect([...first.steps, ...rest.steps]).toEqual(whole.steps)
    expect(rest.adapter).toEqual(whole.adapter)
  },
)

test('preferences too', async () => {
  const rows = Array.from({ length: 12 }, (_, i) => ({
    input: { messages: [{ role: 'user', content: `${i}?` }] },
    preferred_output: [{ role: 'assistant', content: 'yes' }],
    non_preferred_output: [{ role: 'assistant', content: 'no' }],
  }))
  await expectNearly(await requestOf('dpo', rows))
})
