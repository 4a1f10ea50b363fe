// Encoders against transformers and PEFT: hidden states, losses, every gradient. Fixtures by encoders.py.

import { copyFile, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Example } from '../../src/engine/datasets/example.ts'
import { textExample } from '../../src/engine/datasets/text-example.ts'
import { encodeOnnx } from '../../src/engine/graph/onnx.ts'
import { encoderPass } from '../../src/engine/models/encoder-pass.ts'
import { trainedFeeds, trainedLayout } from '../../src/engine/models/trained.ts'
import { createSession } from '../../src/engine/runtime/session.ts'
import { type HostTensor, int64 } from '../../src/engine/tensor.ts'
import { classification } from '../../src/engine/train/methods/classification.ts'
import { embedding } from '../../src/engine/train/methods/embedding.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import type { Plan } from '../../src/engine/train/request.ts'
import type { Subject } from '../../src/engine/train/subject.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { writeAdapterConfig } from '../../src/engine/weights/adapter.ts'
import { type MappedWeights, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { readSafetensorsHeader, writeSafetensors } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { readFixture, readFixtureTensor, relativeError } from '../support/fixtures.ts'
import { suiteFolder } from '../support/temporary.ts'

const cache = suiteFolder()

interface Golden {
  rank: number
  alpha: number
  target_modules: string[]
  loss: number
  lora_loss: number
  embedding_loss: number
  several_loss?: number
  tokens_loss?: number
  pairs: [number, number, number][]
  examples: {
    tokens: number[]
    types: number[]
    label: number
    labels: number[]
    classes: number[]
  }[]
}

const fixture = (name: string) =>
  fileURLToPath(new URL(`fixtures/encoders/${name}`, import.meta.url))

const tensorsOf = async (file: string) => (await readSafetensorsHeader(file)).tensors

const planOf = (part: Partial<Plan>): Plan => ({
  n_epochs: 1,
  batch_size: 6,
  learning_rate_multiplier: 1,
  learning_rate: 1e-3,
  lora: { rank: 2, alpha: 4, target_modules: ['query'] },
  lr_schedule: 'constant',
  warmup_steps: 0,
  weight_decay: 0,
  max_grad_norm: 1,
  total_steps: 1,
  max_sequence_length: 40,
  truncation: 'truncate',
  row_length: 40,
  rows: 1,
  threads: 1,
  precision: 'fp32',
  reasons: [],
  ...part,
})

const setup = (weights: MappedWeights, examples: readonly Example[]) => ({
  checkpoint: {
    id: 'tiny',
    path: fixture(weights.config.model_type),
    format: 'huggingface' as const,
    config: weights.config,
    tensors: new Map(),
    chat_template: undefined,
  },
  weights,
  seed: 1,
  examples,
})

/** A row of 40 does not hold all texts: gradients are sums over micro-batches. */
const trainerOf = async (subject: Subject) =>
  createTrainer(
    { step: 0, adapter: await subject.start(), moments: createMoments(subject.parameters) },
    {
      objective: subject.objective,
      threads: 1,
      weightDecay: 0,
      maxGradNorm: 1,
      turn: async () => ({ [Symbol.dispose]() {} }),
    },
  )

/** A gradient under the names that its vector would be kept by. */
async function written(subject: Subject, gradient: Float32Array): Promise<string> {
  const file = join(await mkdtemp(join(cache, 'gradient-')), 'gradient.safetensors')
  await writeFile(file, (await subject.files(gradient, 0)).adapter)
  return file
}

/** The fixture's adapter as a PEFT folder. */
async function peftFolder(family: string, golden: Golden): Promise<string> {
  const place = await mkdtemp(join(cache, 'peft-'))
  const tensors = []
  for (const [name, tensor] of await tensorsOf(fixture(`${family}.safetensors`)))
    if (name.startsWith('lora.'))
      tensors.push({ name: name.slice(5), dims: tensor.dims, data: await readTensor(tensor) })
  const labels = ['LABEL_0', 'LABEL_1', 'LABEL_2']
  const luthier = JSON.stringify({ method: 'classification', task: 'single', labels })
  await writeFile(join(place, 'adapter_model.safetensors'), writeSafetensors(tensors, { luthier }))
  const config = {
    r: golden.rank,
    lora_alpha: golden.alpha,
    target_modules: golden.target_modules,
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'tiny',
    task_type: 'SEQ_CLS',
    modules_to_save: ['classifier'],
  }
  await writeFile(join(place, 'adapter_config.json'), writeAdapterConfig(config))
  return join(place, 'adapter_model.safetensors')
}

/** Every gradient of the fixture is there and the same; rows of a table that no text has are left out, theirs are 0. */
async function expectGradients(file: string, prefix: string, family: string): Promise<void> {
  const got = await tensorsOf(file)
  const all = await tensorsOf(fixture(`${family}.safetensors`))
  const wanted = [...all].filter(([name]) => name.startsWith(`${prefix}.`))
  expect(wanted.length).toBeGreaterThan(20)
  for (const [name, tensor] of wanted) {
    const want = await readTensor(tensor)
    const found = got.get(name.slice(prefix.length + 1))
    if (!found) expect.fail(`no gradient for ${name}`)
    expect(found.dims, name).toEqual(tensor.dims)
    const values = await readTensor(found)
    if (name.includes('word_embeddings')) {
      const width = tensor.dims[1]!
      for (let row = 0; row * width < want.length; row++)
        if (want.subarray(row * width, (row + 1) * width).every((x) => x === 0))
          values.fill(0, row * width, (row + 1) * width)
    }
    if (want.reduce((most, x) => Math.max(most, Math.abs(x)), 0) < 1e-6) continue
    expect(relativeError(values, want), name).toBeLessThan(1e-4)
  }
}

describe.each(['bert', 'distilbert', 'roberta'])('%s', (family) => {
  let weights: MappedWeights
  let golden: Golden

  beforeAll(async () => {
    weights = await mapWeights(await openCheckpoint(fixture(family)), cache)
    golden = await readFixture<Golden>(`encoders/${family}.json`)
  })

  test('hidden states are those of transformers, whatever else lies in the row', async () => {
    const T = 32
    const layout = trainedLayout(undefined, [])
    const { hidden } = encoderPass(weights, layout, { rows: 1, length: T })
    await using session = await createSession(encodeOnnx({ hidden }), { threads: 1 })
    const D = weights.config.hidden_size
    for (const [first, second] of [
      [0, 1],
      [2, 3],
      [5, 4],
    ] as const) {
      const texts = [golden.examples[first]!, golden.examples[second]!]
      const row = (of: (text: (typeof texts)[0], i: number) => number[]) => {
        const all = texts.flatMap(of)
        return int64([T], [...all, ...new Array<number>(T - all.length).fill(0)])
      }
      const feeds: Record<string, HostTensor> = {
        ...trainedFeeds(layout, new Float32Array(0)),
        tokens: row(({ tokens }) => tokens),
        positions: row(({ tokens }) => tokens.map((_, i) => i)),
        segments: row(({ tokens }, i) => tokens.map(() => i + 1)),
        ...(family === 'bert' && { types: row(({ types }) => types) }),
      }
      const { hidden: got } = await session.run(feeds)
      let at = 0
      for (const [i, example] of [first, second].entries()) {
        const want = await readFixtureTensor(`encoders/${family}.safetensors`, `hidden.${example}`)
        const size = texts[i]!.tokens.length * D
        const part = (got!.data as Float32Array).subarray(at, at + size)
        expect(relativeError(part, want), `example ${example}`).toBeLessThan(1e-4)
        at += size
      }
    }
  })

  describe('classification', () => {
    const labels = ['LABEL_0', 'LABEL_1', 'LABEL_2']

    /** The fixture's model as an earlier job would have kept it, whole. */
    const wholeModel = async () => {
      const place = await mkdtemp(join(cache, 'whole-'))
      await copyFile(join(fixture(family), 'config.json'), join(place, 'adapter_config.json'))
      await copyFile(join(fixture(family), 'model.safetensors'), join(place, 'model.safetensors'))
      return join(place, 'model.safetensors')
    }

    const gradientOf = async (plan: Partial<Plan>, initial: string, task: 'single' | 'several') => {
      const examples = golden.examples.map((e) =>
        textExample(
          1,
          [{ ids: e.tokens, types: e.types, truncated: false }],
          task === 'single' ? [e.label] : e.labels,
        ),
      )
      const subject = classification.subject({
        ...setup(weights, examples),
        initial,
        plan: { ...planOf(plan), facts: { task, labels } },
      })
      await using trainer = await trainerOf(subject)
      const { loss, gradient, scores } = await trainer.gradient(examples)
      return { loss, scores, files: await written(subject, gradient) }
    }

    test('all weights: loss and every gradient are those of transformers', async () => {
      const { loss, scores, files } = await gradientOf(
        { adapter: 'none' },
        await wholeModel(),
        'single',
      )
      expect(loss).toBeCloseTo(golden.loss, 5)
      expect(scores.accuracy).toBeGreaterThanOrEqual(0)
      await expectGradients(files, 'all', family)
    })

    test('LoRA and head: loss and every gradient are those of PEFT', async () => {
      const initial = await peftFolder(family, golden)
      const lora = { rank: golden.rank, alpha: golden.alpha, target_modules: golden.target_modules }
      // Texts of up to 17 tokens: one needs the long row, and all need several micro-batches.
      const mixed = { rows: 2, row_length: 16, long_rows: { rows: 1, length: 24 } }
      const { loss, files } = await gradientOf({ lora, ...mixed }, initial, 'single')
      expect(loss).toBeCloseTo(golden.lora_loss, 5)
      await expectGradients(files, 'lora_gradient', family)
    })

    test.runIf(family === 'bert')(
      'several labels: every gradient is that of transformers',
      async () => {
        const several = await wholeModel()
        const config = join(several, '..', 'adapter_config.json')
        const json = JSON.parse(await readFile(config, 'utf8'))
        await writeFile(
          config,
          JSON.stringify({ ...json, problem_type: 'multi_label_classification' }),
        )
        const { loss, files } = await gradientOf({ adapter: 'none' }, several, 'several')
        expect(loss).toBeCloseTo(golden.several_loss!, 5)
        await expectGradients(files, 'several', family)
      },
    )

    test.runIf(family === 'bert')(
      'labels of tokens: every gradient is that of transformers',
      async () => {
        const file = await wholeModel()
        const config = join(file, '..', 'adapter_config.json')
        const labels = ['O', 'B-x', 'I-x']
        const json = {
          ...JSON.parse(await readFile(config, 'utf8')),
          architectures: ['BertForTokenClassification'],
          id2label: { ...labels },
        }
        await writeFile(config, JSON.stringify(json))
        const tensors = []
        for (const [name, tensor] of await tensorsOf(file))
          if (!name.startsWith('classifier.'))
            tensors.push({ name, dims: tensor.dims, data: await readTensor(tensor) })
        for (const [name, tensor] of await tensorsOf(fixture('bert.safetensors')))
          if (name.startsWith('tokens_head.'))
            tensors.push({
              name: name.replace('tokens_head', 'classifier'),
              dims: tensor.dims,
              data: await readTensor(tensor),
            })
        await writeFile(file, writeSafetensors(tensors))

        const examples = golden.examples.map((e) =>
          textExample(
            1,
            [{ ids: e.tokens, types: e.types, truncated: false }],
            e.classes.map((c) => (c < 0 ? -1 : c)),
          ),
        )
        const subject = classification.subject({
          ...setup(weights, examples),
          initial: file,
          plan: { ...planOf({ adapter: 'none' }), facts: { task: 'tokens', labels } },
        })
        await using trainer = await trainerOf(subject)
        const { loss, gradient } = await trainer.gradient(examples)
        expect(loss).toBeCloseTo(golden.tokens_loss!, 5)
        await expectGradients(await written(subject, gradient), 'tokens', family)
      },
    )
  })

  test('embedding: loss and every gradient are those of transformers, over micro-batches', async () => {
    const triples = golden.pairs.map((triple) =>
      textExample(
        1,
        triple.map((i) => {
          const { tokens, types } = golden.examples[i]!
          return { ids: tokens, types, truncated: false }
        }),
      ),
    )
    const subject = embedding.subject({
      ...setup(weights, triples),
      initial: undefined,
      plan: planOf({ adapter: 'none' }),
    })
    await using trainer = await trainerOf(subject)
    const { loss, gradient } = await trainer.gradient(triples)
    expect(loss).toBeCloseTo(golden.embedding_loss, 4)
    await expectGradients(await written(subject, gradient), 'embedding', family)
    const valid = await trainer.evaluate(triples)
    expect(valid?.loss).toBeCloseTo(golden.embedding_loss, 4)
    expect(valid?.scores.mrr_at_10).toBeGreaterThan(0)
  })
})
