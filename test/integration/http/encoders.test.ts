// From a file to answers for encoders: labels, spans and vectors, by LoRA and with all weights.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EncoderServer, startEncoderServer } from '../../support/encoder-server.ts'

let folder: string
let server: EncoderServer

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-encoders-'))
  server = await startEncoderServer(folder)
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

const letter = (i: number) => 'abcdefgh'[i % 8]!
const quick = { n_epochs: 12, batch_size: 8, learning_rate: 0.02 }
const repeat = (row: (i: number) => object) => Array.from({ length: 40 }, (_, i) => row(i))

/** What a model was held against before it was published. */
async function expectCertified(model: string, file: 'training' | 'validation') {
  const { parity } = (await (server.client.models.retrieve(model) as Promise<unknown>)) as {
    parity: Record<string, unknown>
  }
  expect(parity).toMatchObject({
    file,
    tolerance: 5e-4,
    template_sha256: null,
    precision: { training: 'fp32', serving: 'fp32' },
    mean_kl: null,
  })
  expect(parity.lines).toHaveLength(4)
  expect(parity.tokens).toBeGreaterThan(12)
  expect(parity.worst_difference).toBeLessThan(5e-5)
}

async function result(job: { result_files: string[] }): Promise<string> {
  const file = await server.client.files.content(job.result_files[0]!)
  return file.text()
}

describe.each([
  ['LoRA', { ...quick, lora: { rank: 4 } }],
  ['all weights', { ...quick, learning_rate: 0.01, adapter: 'none' }],
])('%s', (_, hyperparameters) => {
  test('one label: a tuned model tells it, with probabilities that add up', async () => {
    const rows = repeat((i) => ({ text: `${letter(i)}x ${letter(i)}`, label: `kind-${i % 4}` }))
    const method = { type: 'classification', hyperparameters }
    const job = await server.tune(rows.slice(0, 32), method, rows.slice(32))
    expect(job.error?.message).toBeUndefined()
    const [head, ...lines] = (await result(job)).trim().split('\n')
    expect(head).toBe('step,train_loss,train_accuracy,valid_loss,valid_accuracy,valid_macro_f1')
    expect(lines.at(-1)?.split(',').at(-1)).not.toBe('')

    const model = job.fine_tuned_model!
    await expectCertified(model, 'validation')
    const { status, body } = await server.post('/classifications', {
      model,
      input: ['ax a', 'bx b', 'gx g'],
    })
    expect(status).toBe(200)
    expect(body).toMatchObject({ object: 'list', model, usage: { prompt_tokens: 15 } })
    expect(body.id).toMatch(/^classify-/)
    expect(body.data.map((d: { label: string }) => d.label)).toEqual(['kind-0', 'kind-1', 'kind-2'])
    for (const { probs, num_classes, scores, label } of body.data) {
      expect(num_classes).toBe(4)
      expect(probs.reduce((a: number, b: number) => a + b)).toBeCloseTo(1, 5)
      expect(scores[label]).toBe(Math.max(...probs))
    }
    // What was trained whole is in the export, and the export says so.
    for (const format of 'lora' in hyperparameters ? ['peft', 'hf'] : ['hf']) {
      const files = await server.weights(model, format)
      const [words, weights] =
        format === 'peft'
          ? ['adapter_config.json', 'adapter_model.safetensors']
          : ['config.json', 'model.safetensors']
      const config = JSON.parse(files.get(words)!)
      if (format === 'peft') expect(config.modules_to_save).toEqual(['classifier'])
      else expect(Object.values(config.id2label)).toContain('kind-3')
      expect(files.get(weights)).toMatch(/classifier\.weight":\{"dtype":"F32","shape":\[4,/)
    }

    // What lies beside a text in one run changes nothing.
    const alone = await server.post('/classifications', { model, input: 'gx g' })
    expect(alone.body.data[0].probs[2]).toBeCloseTo(body.data[2].probs[2], 4)
  })

  test('pairs: the vector of an anchor is nearest to its own positive', async () => {
    const rows = repeat((i) => ({
      anchor: `${letter(i)}y`,
      positive: `q ${letter(i)}${letter(i)}`,
    }))
    const method = { type: 'embedding', hyperparameters }
    const job = await server.tune(rows.slice(0, 32), method, rows.slice(32))
    expect(job.error?.message).toBeUndefined()
    expect(await result(job)).toMatch(/^step,.*valid_mrr_at_10\n/)

    const input = ['ay', 'cy', 'q aa', 'q cc']
    const model = job.fine_tuned_model!
    await expectCertified(model, 'validation')
    // The official client asks for base64 and decodes it.
    const { data, usage } = await server.client.embeddings.create({ model, input })
    expect(usage.prompt_tokens).toBe(4 + 4 + 5 + 5)
    const [a, c, aa, cc] = data.map(({ embedding }) => embedding) as [number[], ...number[][]]
    const dot = (x: number[], y: number[]) => x.reduce((n, v, i) => n + v * y[i]!, 0)
    expect(dot(a, a)).toBeCloseTo(1, 4)
    expect(dot(a, aa!)).toBeGreaterThan(dot(a, cc!))
    expect(dot(c!, cc!)).toBeGreaterThan(dot(c!, aa!))

    const floats = await server.post('/embeddings', {
      model,
      input: 'ay',
      encoding_format: 'float',
    })
    expect(floats.body.data[0].embedding).toHaveLength(16)
    expect(floats.body.data[0].embedding[0]).toBeCloseTo(a[0]!, 4)
  })
})

test('pairs with a negative: the anchor is turned away from it', async () => {
  const apart = async (negatives: boolean) => {
    const rows = repeat((i) => ({
      anchor: `${letter(i)}y`,
      positive: `q ${letter(i)}${letter(i)}`,
      ...(negatives && { negative: 'zz zz' }),
    }))
    const hyperparameters = { ...quick, n_epochs: 4, lora: { rank: 4 } }
    const job = await server.tune(rows, { type: 'embedding', hyperparameters })
    expect(job.error?.message).toBeUndefined()
    const { data } = await server.client.embeddings.create({
      model: job.fine_tuned_model!,
      input: ['ay', 'zz zz'],
    })
    const [a, z] = data.map(({ embedding }) => embedding) as [number[], number[]]
    return a.reduce((sum, x, i) => sum + x * z[i]!, 0)
  }
  expect(await apart(true)).toBeLessThan((await apart(false)) - 0.2)
})

test.each(['distilbert', 'roberta'])('%s learns labels, and tells them', async (family) => {
  const rows = repeat((i) => ({ text: `${letter(i)}x ${letter(i)}`, label: `kind-${i % 4}` }))
  const method = {
    type: 'classification',
    hyperparameters: { ...quick, n_epochs: 25, lora: { rank: 4 } },
  }
  const { error, fine_tuned_model } = await server.tune(rows, method, undefined, family)
  expect(error?.message).toBeUndefined()
  const input = ['ax a', 'bx b', 'gx g']
  const { body } = await server.post('/classifications', { model: fine_tuned_model!, input })
  expect(body.data.map((d: { label: string }) => d.label)).toEqual(['kind-0', 'kind-1', 'kind-2'])
})

test('several labels: those more likely than not are told', async () => {
  const rows = repeat((i) => ({
    text: `${letter(i)} ${letter(3 * i)}`,
    labels: [...new Set([letter(i), letter(3 * i)])].filter((l) => l < 'd'),
  }))
  const hyperparameters = { ...quick, lora: { rank: 4 } }
  const job = await server.tune(rows, { type: 'classification', hyperparameters })
  expect(job.error?.message).toBeUndefined()
  await expectCertified(job.fine_tuned_model!, 'training')
  const { body } = await server.post('/classifications', {
    model: job.fine_tuned_model,
    input: ['b d', 'h h'],
  })
  expect(body.data).toMatchObject([{ labels: ['b'] }, { labels: [] }])
  expect(body.data[0]).not.toHaveProperty('label')
})

test('spans: words of a kind are found where they lie', async () => {
  const rows = repeat((i) => ({
    text: `${letter(i)} nn ${letter(i + 1)}m`,
    spans: [{ start: 0, end: 1, label: letter(i) < 'd' ? 'low' : 'high' }],
  }))
  const hyperparameters = { ...quick, n_epochs: 20, learning_rate: 0.005, adapter: 'none' }
  const job = await server.tune(rows, { type: 'classification', hyperparameters })
  expect(job.error?.message).toBeUndefined()
  await expectCertified(job.fine_tuned_model!, 'training')
  const { body } = await server.post('/classifications', {
    model: job.fine_tuned_model,
    input: '  b nn cm',
  })
  expect(body.data[0]).toMatchObject({
    index: 0,
    num_classes: 2,
    spans: [{ start: 2, end: 3, label: 'low' }],
  })
  expect(body.data[0].spans).toHaveLength(1)
})

test('bad rows are told with their line and place', async () => {
  const rows = repeat((i) => (i === 4 ? { text: 'a' } : { text: 'a', label: 'x' }))
  const job = await server.tune(rows, { type: 'classification', hyperparameters: quick })
  expect(job.error).toMatchObject({ code: 'invalid_training_file', param: 'training_file' })
  const { data } = await server.client.fineTuning.jobs.listEvents(job.id)
  const told = data.find(({ level }) => level === 'error')?.data as { errors: object[] }
  expect(told.errors).toMatchObject([{ line: 5, check: 'missing_label', param: 'training_file' }])
})

describe('what a model does not answer is a 400', () => {
  const refused = async (path: string, body: object) => {
    const { status, body: reply } = await server.post(path, body)
    expect(status).toBe(400)
    return reply.error
  }

  test('vectors of a model that came with a head', async () => {
    expect(await refused('/embeddings', { model: 'tiny', input: [[2, 5, 3]] })).toMatchObject({
      param: 'model',
      code: 'unsupported_model',
    })
  })

  test('more dimensions than the model has; fewer are the first of them', async () => {
    expect(
      await refused('/embeddings', { model: 'headless', input: 'a', dimensions: 17 }),
    ).toMatchObject({ param: 'dimensions', code: 'unsupported_value' })
    const ask = { model: 'headless', input: [[2, 5, 3]] }
    const whole = (await server.post('/embeddings', ask)).body.data[0].embedding as number[]
    expect(whole).toHaveLength(16)
    const cut = (await server.post('/embeddings', { ...ask, dimensions: 4 })).body.data[0].embedding
    const length = Math.hypot(...whole.slice(0, 4))
    expect(cut).toHaveLength(4)
    for (const [i, x] of cut.entries()) expect(x).toBeCloseTo(whole[i]! / length, 5)
  })

  test('labels of a decoder, and text of an encoder', async () => {
    expect(await refused('/classifications', { model: 'decoder', input: 'a' })).toMatchObject({
      param: 'model',
      code: 'unsupported_model',
    })
    expect(await refused('/completions', { model: 'tiny', prompt: 'a' })).toMatchObject({
      param: 'model',
      code: 'unsupported_model',
    })
  })

  test('empty, too long, and of the wrong kind', async () => {
    expect(await refused('/classifications', { model: 'tiny', input: '' })).toMatchObject({
      param: 'input',
    })
    expect(
      await refused('/classifications', { model: 'tiny', input: ['a', 'ab'.repeat(30)] }),
    ).toMatchObject({ param: 'input.1', code: 'context_length_exceeded' })
    expect(await refused('/embeddings', { model: 'tiny', input: ['a', [1]] })).toMatchObject({
      param: 'input',
      code: 'invalid_type',
    })
  })

  test('a checkpoint that came with a head answers with it', async () => {
    const { status, body } = await server.post('/classifications', { model: 'tiny', input: 'ab' })
    expect(status).toBe(200)
    expect(body.data[0].label).toMatch(/^LABEL_[012]$/)
  })
})

describe.each([
  ['LoRA', { lora: { rank: 4 } }],
  ['all weights', { adapter: 'none' }],
])('with a limit to what may be forgotten, %s', (_, adapter) => {
  const phrase = repeat((i) => ({
    text: `please hold the line ${letter(i)}`,
    label: `kind-${i % 2}`,
  }))
  const tune = (hyperparameters: object) =>
    server.tune(
      phrase,
      {
        type: 'classification',
        hyperparameters: { batch_size: 8, ...adapter, ...hyperparameters },
      },
      undefined,
      'tiny',
      { publish: { max_regression: 0.2 } },
    )
  const probed = async (id: string) => {
    const { data } = await server.client.fineTuning.jobs.checkpoints.list(id)
    return data[0]!.metrics as unknown as Record<string, number>
  }

  test('an encoder that was trained too long on one phrase is refused', async () => {
    const job = await tune({ n_epochs: 12, learning_rate: 0.05 })
    expect([job.status, job.fine_tuned_model]).toEqual(['failed', null])
    expect(job.error).toMatchObject({
      code: 'model_regressed',
      param: 'luthier.publish.max_regression',
    })
    const { probe_loss, probe_base_loss, probe_divergence } = await probed(job.id)
    expect(probe_loss! - probe_base_loss!).toBeGreaterThan(0.2)
    expect(probe_divergence).toBeCloseTo(probe_loss! - probe_base_loss!, 6)
  })

  test('one that was not is published', async () => {
    const job = await tune({ n_epochs: 1, learning_rate: 1e-4 })
    expect(job.error?.message).toBeUndefined()
    expect(job.fine_tuned_model).toMatch(/^ft:/)
    const { probe_divergence } = await probed(job.id)
    expect(probe_divergence).toBeGreaterThan(0)
    expect(probe_divergence).toBeLessThan(0.2)
  })
})
