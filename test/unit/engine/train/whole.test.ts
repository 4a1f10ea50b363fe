import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { encodeFile } from '../../../../src/engine/datasets/encode.ts'
import { cutTensor, trainedLayout } from '../../../../src/engine/models/trained.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import { train } from '../../../../src/engine/train/loop.ts'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../../../src/engine/train/optimizer.ts'
import type { Plan, TrainEvent, TrainRequest } from '../../../../src/engine/train/request.ts'
import { createTrainer } from '../../../../src/engine/train/trainer.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
const turn = async () => ({ [Symbol.dispose]() {} })
const training = { path: join(folder, 'train.jsonl') }
const cache = join(folder, 'cache')
let model: string
let plan: Plan

beforeAll(async () => {
  model = await writeTinyModel(join(folder, 'tiny'))
  const rows = Array.from({ length: 12 }, (_, i) =>
    JSON.stringify({ prompt: `${i} is `, completion: i % 2 ? 'odd' : 'even' }),
  )
  await writeFile(training.path, rows.join('\n'))
  const { plan: made } = await inspect({
    type: 'inspect',
    model,
    training,
    method: 'supervised',
    hyperparameters: {
      n_epochs: 4,
      batch_size: 4,
      learning_rate_multiplier: 1,
      adapter: 'none',
      learning_rate: 3e-3,
    },
  })
  plan = made!
})

async function collect(part: Partial<TrainRequest> = {}, stopAfter?: number) {
  const abort = new AbortController()
  const events: TrainEvent[] = []
  const request = { type: 'train', model, cache, training, method: 'supervised', plan, seed: 7 }
  const whole = { ...request, ...part } as TrainRequest
  for await (const event of train(whole, { signal: abort.signal, turn })) {
    events.push(event)
    if (event.type === 'step' && event.metrics.step === stopAfter) abort.abort()
  }
  return events
}

const losses = (events: readonly TrainEvent[]) =>
  events.flatMap((e) => (e.type === 'step' ? [e.metrics.train_loss] : []))
const last = (events: readonly TrainEvent[]) => events.findLast((e) => e.type === 'checkpoint')!

test.each([true, false])(
  'the gradient of every tensor meets finite differences (tied head: %s)',
  async (tie_word_embeddings) => {
    const path = await writeTinyModel(join(folder, `tied-${tie_word_embeddings}`), {
      config: { tie_word_embeddings },
    })
    const checkpoint = await openCheckpoint(path)
    const weights = await mapWeights(checkpoint, cache)
    const tokenizer = await openTokenizer(checkpoint)
    const encoder = supervised.encoder({
      tokenizer,
      chat_template: undefined,
      max_sequence_length: 96,
    })
    const examples = (await encodeFile(training.path, encoder)).slice(0, 5)
    const setup = { checkpoint, weights, plan, seed: 1, initial: undefined, examples }
    const subject = supervised.whole!(setup)
    const adapter = await subject.start()
    const state = { step: 0, adapter, moments: createMoments(subject.parameters) }
    const common = { threads: 1, weightDecay: 0, maxGradNorm: 1, turn }
    await using trainer = await createTrainer(state, { objective: subject.objective, ...common })
    const { gradient } = await trainer.gradient(examples)

    const tensors = [...weights.tensors.values()].map(({ name, dims }) => ({ name, dims }))
    for (const place of trainedLayout(undefined, tensors).tensors) {
      const part = cutTensor(place, gradient)
      const largest = part.reduce((at, x, i) => (Math.abs(x) > Math.abs(part[at]!) ? i : at), 0)
      const values = cutTensor(place, adapter)
      const before = values[largest]!
      const at = async (x: number) => {
        values[largest] = x
        return (await trainer.evaluate(examples))!.loss
      }
      const h = 1e-2
      const want = ((await at(before + h)) - (await at(before - h))) / (2 * h)
      values[largest] = before
      // float32 losses around 6 and a step of 1e-2: the quotient is good to about 1e-4.
      const error = Math.abs(part[largest]! - want)
      expect(error, `${place.name}[${largest}]`).toBeLessThan(2e-2 * Math.abs(want) + 2e-4)
    }
  },
)

test('it learns, and stopped at any step it goes on to the same bytes', async () => {
  const whole = await collect()
  expect(losses(whole)).toHaveLength(12)
  expect(losses(whole).at(-1)).toBeLessThan(losses(whole)[0]! / 2)
  for (const stop of [1, 5, 9]) {
    const { state } = (await collect({}, stop)).at(-1) as { state: Uint8Array }
    const rest = await collect({ state })
    expect(losses(rest)).toEqual(losses(whole).slice(stop))
    expect(last(rest)).toEqual(last(whole))
  }
})

test('models whose files hold other names are refused before they are trained', async () => {
  const gpt2 = {
    model_type: 'gpt2',
    n_embd: 32,
    n_layer: 1,
    n_head: 2,
    n_positions: 96,
    vocab_size: 258,
  }
  const request = {
    type: 'inspect',
    model: await writeTinyModel(join(folder, 'gpt2'), { config: gpt2 }),
    training,
    method: 'supervised',
    hyperparameters: {
      n_epochs: 1,
      batch_size: 4,
      learning_rate_multiplier: 1,
      adapter: 'none',
    },
  } as const
  await expect(inspect(request)).rejects.toThrow(/All weights are trained only of .* gpt2/)
})
