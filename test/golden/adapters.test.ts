// rsLoRA, DoRA, dropout and LoRA+ on stories260k against PEFT. Fixtures by adapters.py.

import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Example } from '../../src/engine/datasets/example.ts'
import { Decoder } from '../../src/engine/infer/decoder.ts'
import {
  adapterFromFlat,
  cutPart,
  flatFromAdapter,
  type LoraConfig,
  loraConfigOf,
  loraLayout,
  partsOf,
} from '../../src/engine/models/adapters.ts'
import { gainsOf, setMagnitudes } from '../../src/engine/models/dora.ts'
import { loraRates } from '../../src/engine/train/adapter-subject.ts'
import { supervised } from '../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { readAdapter, writeAdapter, writeAdapterConfig } from '../../src/engine/weights/adapter.ts'
import { type MappedWeights, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { fixturePath, readFixture, readFixtureTensor, relativeError } from '../support/fixtures.ts'
import { shared } from '../support/shared.ts'

const model = shared('models/stories260k')
const GRADIENTS = 'adapters.gradients.safetensors'
const run = promisify(execFile)

/** A Python with torch, transformers and peft: then PEFT itself is asked. */
const python = process.env.LUTHIER_PEFT_PYTHON

type Kind = LoraConfig & { loraplus_lr_ratio: number }
interface Row {
  tokens: number[]
  weights: number[]
}
interface Golden {
  seed: number
  kinds: Record<string, Kind>
  gradients: Record<string, { example: number; loss: number }>
  losses: Record<string, number[]>
}

const example = ({ tokens, weights }: Row): Example => ({
  line: 1,
  tokens: Int32Array.from(tokens),
  weights: Float32Array.from(weights),
})

describe.skipIf(model.missing)('adapters', () => {
  let cache: string
  let weights: MappedWeights
  let golden: Golden

  beforeAll(async () => {
    cache = await mkdtemp(join(tmpdir(), 'luthier-golden-'))
    weights = await mapWeights(await openCheckpoint(model.path), cache)
    golden = await readFixture<Golden>('adapters.json')
  })
  afterAll(() => rm(cache, { recursive: true }))

  /** `dropout` computes what rsLoRA's tensors say, scaled as LoRA is. */
  const folderOf = (kind: string) =>
    fixturePath(`adapters.${kind === 'dropout' ? 'rslora' : kind}/adapter_model.safetensors`)

  const read = async (file: string, config?: LoraConfig) => {
    const adapter = await readAdapter(file)
    const layout = loraLayout(weights, config ?? loraConfigOf(adapter))
    return { layout, flat: flatFromAdapter(layout, adapter) }
  }

  const trainer = (config: Kind, flat: Float32Array, length: number, weightDecay = 0) => {
    const layout = loraLayout(weights, config)
    return createTrainer(
      { step: 0, adapter: flat, moments: createMoments(layout.parameters) },
      {
        objective: supervised.objective({ weights, layout, shape: { rows: 1, length } }),
        threads: 1,
        weightDecay,
        maxGradNorm: 1,
        rates: loraRates(layout, config.loraplus_lr_ratio),
        seed: golden.seed,
        turn: async () => ({ [Symbol.dispose]() {} }),
      },
    )
  }

  async function logits(file: string, tokens: readonly number[]): Promise<Float32Array> {
    const { layout, flat } = await read(file)
    const gains = await gainsOf({ weights, layout, threads: 1 }, flat)
    await using decoder = new Decoder({ mapped: weights }, 1)
    const adapter = await decoder.lay(layout, gains)
    const cache = decoder.newCache()
    cache.open(tokens.length)
    await decoder.read(cache, 0, tokens.slice(0, -1), { adapter })
    return (await decoder.decode(cache, tokens.slice(-1), [adapter]))[0]!
  }

  const someTokens = async () =>
    Array.from(await readFixtureTensor('adapters.logits.safetensors', 'tokens'))

  test.each(['rslora', 'dora', 'all'])(
    'a folder that PEFT wrote answers as there: %s',
    async (kind) => {
      const want = await readFixtureTensor('adapters.logits.safetensors', kind)
      expect(relativeError(await logits(folderOf(kind), await someTokens()), want)).toBeLessThan(
        1e-4,
      )
    },
  )

  test.skipIf(!python)('PEFT answers with a folder that we wrote as we do', async () => {
    const tokens = await someTokens()
    for (const kind of ['rslora', 'dora', 'all']) {
      const { layout, flat } = await read(folderOf(kind))
      // Other numbers than PEFT has written.
      for (let i = 0; i < flat.length; i++) flat[i]! *= 1.25
      const adapter = adapterFromFlat(layout, flat, 'stories260k')
      await writeFile(join(cache, 'adapter_model.safetensors'), writeAdapter(adapter))
      await writeFile(join(cache, 'adapter_config.json'), writeAdapterConfig(adapter.config))
      const script = fileURLToPath(new URL('peft_logits.py', import.meta.url))
      const { stdout } = await run(python!, [script, model.path, cache, JSON.stringify(tokens)])
      const got = await logits(join(cache, 'adapter_model.safetensors'), tokens)
      expect(relativeError(got, JSON.parse(stdout)), kind).toBeLessThan(1e-4)
    }
  })

  test.each(['rslora', 'dora', 'dropout', 'all'])('every gradient: %s', async (kind) => {
    const config = golden.kinds[kind]!
    const { layout, flat } = await read(folderOf(kind), config)
    const { examples } = await readFixture<{ examples: Row[] }>('stories260k.lora.json')
    const want = golden.gradients[kind]!
    await using t = await trainer(config, flat, 64)
    const { loss, gradient } = await t.gradient([example(examples[want.example]!)])
    expect(loss).toBeCloseTo(want.loss, 4)
    for (const part of partsOf(layout)) {
      const ending = part.kind === 'lora_magnitude_vector' ? part.kind : `${part.kind}.weight`
      const name = `${kind}:base_model.model.${part.module.name}.${ending}`
      const expected = await readFixtureTensor(GRADIENTS, name)
      expect(relativeError(cutPart(part, gradient), expected), name).toBeLessThan(1e-4)
    }
  })

  test.each(['rslora', 'dora', 'dropout', 'loraplus', 'all'])(
    'twenty steps: the losses of PEFT, %s',
    async (kind) => {
      const config = golden.kinds[kind]!
      const layout = loraLayout(weights, config)
      const flat = new Float32Array(layout.parameters)
      for (const { module, kind: part, from } of partsOf(layout))
        if (part !== 'lora_magnitude_vector') {
          const name = `base_model.model.${module.name}.${part}.weight`
          flat.set(await readFixtureTensor('adapters.initial.safetensors', name), from)
        }
      await setMagnitudes({ weights, layout, threads: 1 }, flat)

      const training = await readFixture<{
        weight_decay: number
        examples: Row[]
        batches: number[][]
        steps: { learning_rate: number }[]
      }>('stories260k.training.json')
      await using t = await trainer(config, flat, 256, training.weight_decay)
      for (const [i, batch] of training.batches.entries()) {
        const examples = batch.map((j) => example(training.examples[j]!))
        const { loss } = await t.step(examples, training.steps[i]!.learning_rate)
        const want = golden.losses[kind]![i]!
        expect(Math.abs(loss - want) / want, `step ${i + 1}`).toBeLessThan(1e-3)
      }
    },
  )
})
