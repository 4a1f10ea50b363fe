import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { Encoders } from '../../../../src/engine/infer/encoders.ts'
import type { Certificate } from '../../../../src/engine/parity/parity.ts'
import { inspect } from '../../../../src/engine/train/inspect.ts'
import { train } from '../../../../src/engine/train/loop.ts'
import { gatherEvidence } from '../../../../src/engine/train/parity.ts'
import type {
  Hyperparameters,
  StepMetrics,
  TrainEvent,
  TrainRequest,
} from '../../../../src/engine/train/request.ts'
import { readSafetensorsHeader } from '../../../../src/engine/weights/safetensors.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyEncoder, writeTinyRoberta } from '../../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let model: string

beforeAll(async () => {
  model = await writeTinyEncoder(join(folder, 'tiny'))
})

const auto = { n_epochs: 12, batch_size: 8, learning_rate_multiplier: 1, learning_rate: 0.02 }
const letter = (i: number) => 'abcdefgh'[i % 8]!

/** A text is of the kind of its letters. */
const kinds = {
  single: (i: number) => ({ text: `${letter(i)}x ${letter(i)}`, label: `kind-${i % 4}` }),
  several: (i: number) => ({
    text: `${letter(i)} ${letter(3 * i)}`,
    labels: [...new Set([letter(i), letter(3 * i)])].filter((l) => l < 'd'),
  }),
  tokens: (i: number) => ({
    text: `${letter(i)} nn ${letter(i + 1)}m`,
    spans: [{ start: 0, end: 1, label: letter(i) < 'd' ? 'low' : 'high' }],
  }),
  pairs: (i: number) => ({
    anchor: `${letter(i)}y`,
    positive: `q ${letter(i)}${letter(i)}`,
    ...(i % 3 === 0 && { negative: 'zz z' }),
  }),
}

async function request(
  kind: keyof typeof kinds,
  hyperparameters: Partial<Hyperparameters>,
): Promise<TrainRequest> {
  const place = await mkdtemp(join(folder, 'rows-'))
  const write = async (name: string, rows: object[]) => {
    const path = join(place, name)
    await writeFile(path, rows.map((row) => JSON.stringify(row)).join('\n'))
    return { path }
  }
  const rows = Array.from({ length: 40 }, (_, i) => kinds[kind](i))
  const data = {
    model,
    training: await write('train.jsonl', rows.slice(0, 32)),
    validation: await write('valid.jsonl', rows.slice(32)),
    method: kind === 'pairs' ? ('embedding' as const) : ('classification' as const),
  }
  const inspection = await inspect({
    type: 'inspect',
    ...data,
    hyperparameters: { ...auto, ...hyperparameters },
  })
  expect(inspection.training.errors).toEqual([])
  expect(inspection.validation?.errors).toEqual([])
  return { type: 'train', ...data, cache: join(folder, 'cache'), plan: inspection.plan!, seed: 7 }
}

async function collect(request: TrainRequest, stopAfter?: number): Promise<TrainEvent[]> {
  const abort = new AbortController()
  const events: TrainEvent[] = []
  const turn = async () => ({ [Symbol.dispose]() {} })
  for await (const event of train(request, { signal: abort.signal, turn })) {
    events.push(event)
    if (event.type === 'step' && event.metrics.step === stopAfter) abort.abort()
  }
  return events
}

const steps = (events: TrainEvent[]): StepMetrics[] =>
  events.flatMap((e) => (e.type === 'step' ? [e.metrics] : []))
const checkpoints = (events: TrainEvent[]) =>
  events.flatMap((e) => (e.type === 'checkpoint' ? [e] : []))

const lora: Partial<Hyperparameters> = { lora: { rank: 4 } }
const whole: Partial<Hyperparameters> = { adapter: 'none', learning_rate: 0.01 }

describe.each([
  ['one label, LoRA', 'single', lora, 'full_valid_macro_f1'],
  ['one label, all weights', 'single', whole, 'full_valid_macro_f1'],
  ['several labels, LoRA', 'several', lora, 'full_valid_macro_f1'],
  ['spans, all weights', 'tokens', whole, 'full_valid_macro_f1'],
  ['pairs, LoRA', 'pairs', lora, 'full_valid_mrr_at_10'],
  ['pairs, all weights', 'pairs', whole, 'full_valid_mrr_at_10'],
] as const)('%s', (_, kind, hyperparameters, score) => {
  let whole: TrainEvent[]
  let asked: TrainRequest

  beforeAll(async () => {
    asked = await request(kind, hyperparameters)
    whole = await collect(asked)
  })

  test('it learns what the rows show, and says how well', () => {
    const all = steps(whole)
    expect(all.at(-1)!.train_loss).toBeLessThan(0.6 * all[0]!.train_loss)
    expect(all.at(-1)!.full_valid_accuracy).toBeGreaterThan(0.7)
    expect(all.at(-1)![score]).toBeGreaterThan(0.6)
  })

  test('stopped and gone on with: the same bytes', async () => {
    const stopped = (await collect(asked, 5)).at(-1) as { state: Uint8Array }
    const rest = await collect({ ...asked, state: stopped.state })
    expect(steps(rest)).toEqual(steps(whole).slice(5))
    expect(checkpoints(rest).at(-1)).toEqual(checkpoints(whole).at(-1))
  })

  test('going on from what was tuned starts at its loss', async () => {
    const place = await mkdtemp(join(folder, 'initial-'))
    const last = checkpoints(whole).at(-1)!
    const initial = join(place, 'adapter_model.safetensors')
    await writeFile(initial, last.adapter)
    await writeFile(join(place, 'adapter_config.json'), last.adapter_config)
    const again = steps(await collect({ ...asked, initial }, 1))
    expect(again[0]!.train_loss).toBeLessThan(0.7 * steps(whole)[0]!.train_loss)
  })
})

test('a family that knows one kind of tokens takes two texts all the same', async () => {
  const roberta = await writeTinyRoberta(join(folder, 'roberta'))
  const path = join(folder, 'pairs.jsonl')
  const rows = Array.from({ length: 24 }, (_, i) => ({
    text: letter(i),
    text_pair: letter(i + (i % 2)),
    label: i % 2 ? 'other' : 'same',
  }))
  await writeFile(path, rows.map((row) => JSON.stringify(row)).join('\n'))
  const data = { model: roberta, training: { path }, method: 'classification' as const }
  const { plan } = await inspect({ type: 'inspect', ...data, hyperparameters: auto })
  const cache = join(folder, 'cache')
  const all = steps(await collect({ type: 'train', ...data, cache, plan: plan!, seed: 7 }))
  expect(all.at(-1)!.train_loss).toBeLessThan(0.6 * all[0]!.train_loss)
})

test.each([
  ['pairs', lora],
  ['tokens', whole],
] as const)(
  '%s: what serving leaves out or reads otherwise is told',
  async (kind, hyperparameters) => {
    const asked = await request(kind, hyperparameters)
    const { adapter, adapter_config } = checkpoints(await collect(asked)).at(-1)!
    const place = await mkdtemp(join(folder, 'tuned-'))
    const file = join(place, 'adapter_model.safetensors')
    await writeFile(file, adapter)
    await writeFile(join(place, 'adapter_config.json'), adapter_config)
    const turn = async () => ({ [Symbol.dispose]() {} })
    const { evidence } = await gatherEvidence({ ...asked, type: 'evidence', adapter: file }, turn)
    const encoders = new Encoders(1)
    const target = { model, cache: asked.cache, adapter: file }
    const certify = (change: object) =>
      encoders.certify({ type: 'certify', target, evidence: evidence!, ...change }, turn)
    const { certificate } = (await certify({})) as { certificate: Certificate }
    expect(certificate).toMatchObject({ file: 'validation', lines: [1, 3, 5, 7], mean_kl: null })
    expect(certificate.worst_difference).toBeLessThan(5e-5)
    expect(await certify({ target: { model, cache: asked.cache } })).toEqual({
      difference: expect.stringMatching(
        /^What the serving graph answers differs .* of the validation/,
      ),
    })
    const longer = evidence!.texts!.map((row) => ({ ...row, text: `${row.text} a` }))
    expect(await certify({ evidence: { ...evidence!, texts: longer } })).toEqual({
      difference: expect.stringMatching(/^Serving reads the text of line 1 of the validation file/),
    })
    await encoders.clear()
  },
)

test('int8 reaches the frozen products of an encoder, and it learns the same', async () => {
  const exact = steps(await collect(await request('single', { ...lora, precision: 'fp32' })))
  const near = steps(await collect(await request('single', { ...lora, precision: 'int8' })))
  expect(near[0]!.train_loss).not.toBe(exact[0]!.train_loss)
  expect(near[0]!.train_loss).toBeCloseTo(exact[0]!.train_loss, 1)
  expect(near.at(-1)!.full_valid_accuracy).toBeGreaterThan(0.7)
})

test('what is kept are the files of PEFT with the head among them, or those of a whole model', async () => {
  const names = async (hyperparameters: Partial<Hyperparameters>, kind: keyof typeof kinds) => {
    const asked = await request(kind, { ...hyperparameters, n_epochs: 1 })
    const { adapter, adapter_config } = checkpoints(await collect(asked)).at(-1)!
    const file = join(await mkdtemp(join(folder, 'kept-')), 'kept.safetensors')
    await writeFile(file, adapter)
    const { tensors } = await readSafetensorsHeader(file)
    return { names: [...tensors.keys()], config: JSON.parse(adapter_config) }
  }
  const one = await names(lora, 'single')
  expect(one.names).toContain('base_model.model.classifier.weight')
  expect(one.names).toContain(
    'base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight',
  )
  expect(one.config).toMatchObject({ task_type: 'SEQ_CLS', modules_to_save: ['classifier'] })

  const other = await names(whole, 'single')
  expect(other.names).toContain('bert.embeddings.word_embeddings.weight')
  expect(other.config).toMatchObject({
    architectures: ['BertForSequenceClassification'],
    id2label: { 0: 'kind-0', 3: 'kind-3' },
    problem_type: 'single_label_classification',
  })

  const pairs = await names(lora, 'pairs')
  expect(pairs.names).toContain(
    'base_model.model.encoder.layer.0.attention.self.query.lora_A.weight',
  )
  expect(pairs.names.some((name) => name.includes('pooler'))).toBe(false)
  expect((await names(whole, 'pairs')).names).toContain('embeddings.word_embeddings.weight')
  expect((await names(whole, 'tokens')).config).toMatchObject({
    architectures: ['BertForTokenClassification'],
    id2label: { 0: 'O', 1: 'B-high', 2: 'I-high', 3: 'B-low', 4: 'I-low' },
  })
})

describe('what is wrong is told before anything is trained', () => {
  const look = async (rows: object[], valid: object[] = [], method = 'classification') => {
    const place = await mkdtemp(join(folder, 'wrong-'))
    const write = async (name: string, some: object[]) => {
      await writeFile(join(place, name), some.map((row) => JSON.stringify(row)).join('\n'))
      return { path: join(place, name) }
    }
    return inspect({
      type: 'inspect',
      model,
      training: await write('train.jsonl', rows),
      ...(valid.length > 0 && { validation: await write('valid.jsonl', valid) }),
      method: method as 'classification',
      hyperparameters: auto,
    })
  }

  test('rows of two tasks in one file', async () => {
    const { training } = await look([
      { text: 'a', label: 'x' },
      { text: 'b', labels: ['x'] },
    ])
    expect(training.errors).toMatchObject([{ line: 2, check: 'mixed_formats' }])
  })

  test('a label of the validation file that the training file does not have', async () => {
    const { validation, plan } = await look(
      [
        { text: 'a', label: 'x' },
        { text: 'b', label: 'y' },
      ],
      [
        { text: 'a', label: 'x' },
        { text: 'b', label: 'z' },
      ],
    )
    expect(validation?.errors).toMatchObject([
      { line: 2, pointer: '/label', check: 'unknown_label' },
    ])
    expect(plan).toBeUndefined()
  })

  test('a model that is no encoder, and an encoder for a method that goes on with text', async () => {
    await expect(look([{ prompt: 'a', completion: 'b' }], [], 'supervised')).rejects.toMatchObject({
      param: 'model',
      code: 'unsupported_model',
    })
    const decoder = await writeTinyModel(join(folder, 'decoder'))
    const path = join(folder, 'one.jsonl')
    await writeFile(path, JSON.stringify({ text: 'a', label: 'x' }))
    await expect(
      inspect({
        type: 'inspect',
        model: decoder,
        training: { path },
        method: 'classification',
        hyperparameters: auto,
      }),
    ).rejects.toMatchObject({ param: 'model', code: 'unsupported_model' })
  })
})
