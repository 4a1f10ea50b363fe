// Every family of decoders against transformers and PEFT, on tiny random models. Fixtures by families.py.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Example } from '../../src/engine/datasets/example.ts'
import { Decoder } from '../../src/engine/infer/decoder.ts'
import { argmax } from '../../src/engine/infer/sampler.ts'
import {
  adapterFromFlat,
  flatFromAdapter,
  type LoraLayout,
  loraLayout,
  partsOf,
} from '../../src/engine/models/adapters.ts'
import { gainsOf } from '../../src/engine/models/dora.ts'
import { rotaryFrequencies } from '../../src/engine/models/rope.ts'
import { supervised } from '../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { readAdapter, writeAdapter, writeAdapterConfig } from '../../src/engine/weights/adapter.ts'
import { type MappedWeights, openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { readSafetensorsHeader } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { readFixture, readFixtureTensor, readFlat, relativeError } from '../support/fixtures.ts'

interface Golden {
  rank: number
  alpha: number
  target_modules: string[]
  use_dora: boolean
  tokens: number[]
  prompt: number[]
  greedy: number[]
  total_weight: number
  loss: number
  examples: { tokens: number[]; weights: number[] }[]
}

const example = ({ tokens, weights }: Golden['examples'][number]): Example => ({
  line: 1,
  tokens: Int32Array.from(tokens),
  weights: Float32Array.from(weights),
})

const fixture = (name: string) =>
  fileURLToPath(new URL(`fixtures/families/${name}`, import.meta.url))

describe.each([
  'llama-3',
  'llama-linear',
  'mistral',
  'qwen2',
  'qwen2-sliding',
  'qwen3',
  'gpt2',
  'gpt2-untied',
])('%s', (name) => {
  const cache = mkdtempSync(join(tmpdir(), 'luthier-golden-'))
  let weights: MappedWeights
  let golden: Golden
  let layout: LoraLayout
  let adapter: Float32Array

  beforeAll(async () => {
    weights = await mapWeights(await openCheckpoint(fixture(name)), cache)
    golden = await readFixture<Golden>(`families/${name}/golden.json`)
    layout = loraLayout(weights, golden)
    const stored = await readAdapter(fixture(`${name}/adapter/adapter_model.safetensors`))
    adapter = flatFromAdapter(layout, stored)
  })
  afterAll(() => rmSync(cache, { recursive: true }))

  // fp32 on both sides: what differs is the order of sums.
  test('logits: half as one prompt, the rest token by token', async () => {
    const { tokens } = golden
    const V = weights.config.vocab_size
    const want = await readFixtureTensor(`families/${name}/golden.safetensors`, 'logits')
    await using decoder = new Decoder({ mapped: weights }, 1)
    const cache = decoder.newCache()
    const slot = cache.open(tokens.length)
    const half = tokens.length / 2
    const got = await decoder.read(cache, slot, tokens.slice(0, half), { everywhere: true })
    for (const token of tokens.slice(half)) got.push(...(await decoder.read(cache, slot, [token])))
    for (const [i, logits] of got.entries())
      expect(relativeError(logits, want.subarray(i * V, (i + 1) * V)), `token ${i}`).toBeLessThan(
        1e-4,
      )
  })

  test('loss and every LoRA gradient, three examples packed into one row', async () => {
    await using trainer = await createTrainer(
      { step: 0, adapter, moments: createMoments(layout.parameters) },
      {
        objective: supervised.objective({ weights, layout, shape: { rows: 1, length: 128 } }),
        threads: 1,
        weightDecay: 0,
        maxGradNorm: 1,
        turn: async () => ({ [Symbol.dispose]() {} }),
      },
    )
    const { loss, gradient } = await trainer.gradient(golden.examples.map(example))
    expect(Math.abs(loss - golden.loss) / golden.loss).toBeLessThan(1e-5)
    const want = await readFlat(`families/${name}/golden.safetensors`, layout)
    for (const { module, kind, dims, from } of partsOf(layout)) {
      const part = (flat: Float32Array) => flat.subarray(from, from + dims[0] * dims[1])
      const error = relativeError(part(gradient), part(want))
      expect(error, `${module.name}.${kind}`).toBeLessThan(1e-4)
    }
  })

  test('greedy decoding with the adapter, beside a longer sequence without it', async () => {
    const gains = await gainsOf({ weights, layout, threads: 1 }, adapter)
    await using decoder = new Decoder({ mapped: weights }, 1)
    const laid = await decoder.lay(layout, gains)
    const cache = decoder.newCache()
    const [slot, other] = [cache.open(64), cache.open(64)]
    const [first] = await decoder.read(cache, slot, golden.prompt, { adapter: laid })
    const tokens = [argmax(first!)]
    await decoder.read(cache, other, golden.tokens.slice(0, 21))
    for (let i = 1; i < golden.greedy.length; i++) {
      const both = [tokens.at(-1)!, golden.tokens[i]!]
      const [mine] = await decoder.decode(cache, both, [laid, undefined])
      tokens.push(argmax(mine!))
    }
    expect(tokens).toEqual(golden.greedy)
  })

  test('the adapter is written as PEFT writes it', async () => {
    const file = fixture(`${name}/adapter/adapter_model.safetensors`)
    const ours = adapterFromFlat(layout, adapter, name)
    const config = JSON.parse(writeAdapterConfig(ours.config))
    const want = JSON.parse(
      readFileSync(fixture(`${name}/adapter/adapter_config.json`), 'utf8'),
    ) as Record<string, unknown>
    for (const [key, value] of Object.entries(config))
      expect([key, sorted(value)]).toEqual([key, sorted(want[key])])
    const written = join(cache, 'adapter_model.safetensors')
    writeFileSync(written, writeAdapter(ours))
    expect(await contents(written)).toEqual(await contents(file))
  })
})

/** Every tensor of a safetensors file, in the file's order. */
async function contents(file: string) {
  const { tensors } = await readSafetensorsHeader(file)
  return Promise.all(
    [...tensors.values()].map(async (t) => [t.name, t.dtype, t.dims, await readTensor(t)]),
  )
}

/** PEFT writes a set as it comes. */
const sorted = (value: unknown) => (Array.isArray(value) ? [...value].sort() : value)

describe.each(['llama-3', 'llama-linear', 'qwen2', 'qwen3', 'gpt2'])('%s as GGUF', (name) => {
  test('has the config and the tensors of the folder', async () => {
    const gguf = await openCheckpoint(fixture(`${name}/one-layer.gguf`))
    const folder = await openCheckpoint(fixture(name))
    const { rope_scaling: scaled, num_hidden_layers, ...config } = gguf.config
    const { rope_scaling, num_hidden_layers: _, ...want } = folder.config
    expect(num_hidden_layers).toBe(1)
    expect(config).toEqual({ ...want, tie_word_embeddings: config.tie_word_embeddings })
    expect(gguf.tensors.size).toBeGreaterThan(10)
    for (const [tensor, stored] of gguf.tensors) {
      const same = folder.tensors.get(tensor)!
      expect([tensor, stored.dims]).toEqual([tensor, same.dims])
      expect([tensor, await readTensor(stored)]).toEqual([tensor, await readTensor(same)])
    }
    // llama 3's scaling is kept as what it came to; the plain kind as itself.
    const kept = name === 'llama-3' ? 'factors' : rope_scaling?.rope_type
    expect(scaled?.rope_type).toBe(kept)
    const frequencies = rotaryFrequencies(gguf.config)
    const wanted = rotaryFrequencies(folder.config)
    expect(frequencies?.length).toBe(wanted?.length)
    if (frequencies && wanted) expect(relativeError(frequencies, wanted)).toBeLessThan(1e-6)
  })
})
