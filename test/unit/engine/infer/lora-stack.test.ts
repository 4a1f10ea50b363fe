// One batch of many adapters, held against each alone; and the precisions of the base against each other.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Decoder } from '../../../../src/engine/infer/decoder.ts'
import type { ResidentAdapter } from '../../../../src/engine/infer/lora-stack.ts'
import { type LoraConfig, loraLayout } from '../../../../src/engine/models/adapters.ts'
import { gainsOf } from '../../../../src/engine/models/dora.ts'
import { int4Of } from '../../../../src/engine/models/int4.ts'
import { withInt8 } from '../../../../src/engine/models/int8.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { type MappedWeights, openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import {
  readSafetensorsHeader,
  writeSafetensors,
} from '../../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../../src/engine/weights/stored-tensor.ts'
import { randomTensor } from '../../../support/gradient.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const folder = suiteFolder()
let weights: MappedWeights
let decoder: Decoder

beforeAll(async () => {
  const config = { hidden_size: 64, intermediate_size: 96 }
  const checkpoint = await openCheckpoint(await writeTinyModel(join(folder, 'tiny'), { config }))
  weights = await mapWeights(checkpoint, join(folder, 'cache'))
  decoder = new Decoder({ mapped: weights }, 1)
})
afterAll(() => decoder[Symbol.asyncDispose]())

async function adapter(seed: number, config: LoraConfig): Promise<ResidentAdapter> {
  const layout = loraLayout(weights, config)
  const { data } = randomTensor([layout.parameters], seed, [-0.3, 0.3])
  return decoder.lay(layout, await gainsOf({ weights, layout, threads: 1 }, data))
}

/** The logits of each row after its prompt and one token more, all rows in one batch. */
async function together(on: Decoder, adapters: readonly (ResidentAdapter | undefined)[]) {
  const cache = on.newCache()
  for (const [i, own] of adapters.entries()) {
    const prompt = Array.from({ length: 5 + 3 * i }, (_, k) => (7 * k + i) % 256)
    cache.open(prompt.length + 1)
    await on.read(cache, i, prompt, { adapter: own })
  }
  return on.decode(
    cache,
    adapters.map((_, i) => 40 + i),
    adapters,
  )
}

const most = (a: Float32Array, b: Float32Array) =>
  a.reduce((worst, x, i) => Math.max(worst, Math.abs(x - b[i]!)), 0)

test('adapters of many ranks and targets and the base in one batch are as each alone', async () => {
  const all = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
  const adapters = [
    await adapter(1, { rank: 4, alpha: 8, target_modules: all }),
    undefined,
    await adapter(2, { rank: 2, alpha: 2, target_modules: ['q_proj', 'v_proj'] }),
    await adapter(3, { rank: 7, alpha: 8, target_modules: ['down_proj'], use_rslora: true }),
    await adapter(4, { rank: 3, alpha: 8, target_modules: all, use_dora: true }),
  ]
  const got = await together(decoder, adapters)
  const base = await together(
    decoder,
    adapters.map(() => undefined),
  )
  for (const [i, own] of adapters.entries()) {
    const alone = await together(
      decoder,
      adapters.map((_, k) => (k === i ? own : undefined)),
    )
    expect(most(got[i]!, alone[i]!), `row ${i}`).toBeLessThan(1e-4)
    if (own) expect(most(got[i]!, base[i]!), `row ${i}`).toBeGreaterThan(1e-2)
  }
})

test('adapters that come and go, some of them for several rows, are as each alone', async () => {
  const all = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
  const [a, b, c, d] = [
    await adapter(1, { rank: 20, alpha: 8, target_modules: all }),
    await adapter(2, { rank: 8, alpha: 2, target_modules: ['k_proj', 'v_proj'] }),
    await adapter(3, { rank: 3, alpha: 8, target_modules: ['down_proj', 'up_proj'] }),
    await adapter(4, {
      rank: 12,
      alpha: 16,
      target_modules: ['q_proj', 'o_proj'],
      use_rslora: true,
    }),
  ]
  const alone = async (own: ResidentAdapter | undefined, row: number) =>
    (await together(decoder, new Array(row + 1).fill(own)))[row]!
  for (const rows of [
    [a, b, c],
    [undefined, b],
    [b, a, b, a, undefined],
    [d, c],
    [c, undefined, a, d, b, c],
    [b, d],
  ]) {
    const got = await together(decoder, rows)
    for (const [i, own] of rows.entries())
      expect(most(got[i]!, await alone(own, i)), `row ${i} of ${rows.length}`).toBeLessThan(1e-4)
  }
})

test('prompts of many lengths that are read together are as each alone', async () => {
  const adapters = [
    await adapter(1, { rank: 4, alpha: 8, target_modules: ['q_proj', 'v_proj', 'up_proj'] }),
    undefined,
    await adapter(4, { rank: 3, alpha: 8, target_modules: ['o_proj'], use_dora: true }),
  ]
  const want = await together(decoder, adapters)
  const cache = decoder.newCache()
  const prompts = adapters.map((_, i) => {
    cache.open(1)
    return Array.from({ length: 5 + 3 * i }, (_, k) => (7 * k + i) % 256)
  })
  await decoder.read(cache, 2, prompts[2]!.splice(0, 4), { adapter: adapters[2] })
  await decoder.readTogether(cache, prompts, adapters)
  expect(adapters.map((_, i) => cache.length(i))).toEqual([5, 8, 11])
  const got = await decoder.decode(cache, [40, 41, 42], adapters)
  for (const [i, row] of got.entries()) expect(most(row, want[i]!), `row ${i}`).toBeLessThan(1e-4)
})

test('who comes takes the room of who left, and nobody sees the other', async () => {
  const make = (seed: number, rank: number) =>
    adapter(seed, { rank, alpha: 8, target_modules: ['q_proj', 'up_proj'] })
  const [a, b, c] = [await make(1, 8), await make(2, 4), await make(3, 3)]
  const alone = await together(decoder, [undefined, c])
  await together(decoder, [a, b])
  // c lies in the room of b now, which was wider.
  expect(most((await together(decoder, [a, c]))[1]!, alone[1]!)).toBeLessThan(1e-4)
  expect(most((await together(decoder, [undefined, c]))[1]!, alone[1]!)).toBeLessThan(1e-4)
})

/** Puts every matrix of the model on a grid of sixteen steps for each 32 values, as a file of four bits has them. */
async function onGrid(path: string): Promise<void> {
  const { tensors } = await readSafetensorsHeader(join(path, 'model.safetensors'))
  const rounded = await Promise.all(
    [...tensors.values()].map(async (tensor) => {
      const { name, dims } = tensor
      const data = await readTensor(tensor)
      if (dims.length === 2)
        for (let at = 0; at < data.length; at += 32) {
          const block = data.subarray(at, at + 32)
          const [least, most] = [Math.min(...block), Math.max(...block)]
          const d = (most - least) / 15
          for (const [i, w] of block.entries()) block[i] = least + d * Math.round((w - least) / d)
        }
      return { name, dims, data }
    }),
  )
  await writeFile(join(path, 'model.safetensors'), writeSafetensors(rounded))
}

test('weights that have four bits already are served as they are', async () => {
  const cache = join(folder, 'cache')
  const config = { hidden_size: 64, intermediate_size: 96 }
  const path = await writeTinyModel(join(folder, 'grid'), { config })
  await onGrid(path)
  const mapped = await mapWeights(await openCheckpoint(path), cache)
  const int4 = await int4Of(mapped, cache)
  expect([...int4.values()].map(({ bits }) => bits)).toEqual([4, 4, 4, 4, 4, 4, 4, 4, 8])
  await using served = new Decoder({ mapped, int4 }, 1)
  await using plain = new Decoder({ mapped }, 1)
  const rows = [undefined, undefined, undefined]
  const [got, want] = [await together(served, rows), await together(plain, rows)]
  // What is left is the rounding of activations, and of the head, to eight bits, and of rests of offsets to four.
  for (const [i, row] of got.entries())
    expect(most(row, want[i]!) / Math.max(...want[i]!.map(Math.abs))).toBeLessThan(0.1)
})

test('prompts are read in eight bits, with adapters too, and in four where every place is judged', async () => {
  const cache = join(folder, 'cache')
  const config = { hidden_size: 64, intermediate_size: 1056 } // so wide that gate and up are pieces of their own
  const path = await writeTinyModel(join(folder, 'prompts'), { config })
  await onGrid(path)
  const checkpoint = await openCheckpoint(path)
  const mapped = await mapWeights(checkpoint, cache)
  const int4 = await int4Of(mapped, cache)
  const prompts = (await withInt8(mapped, cache, await openTokenizer(checkpoint))).int8
  await using served = new Decoder({ mapped, int4, prompts }, 1)
  await using four = new Decoder({ mapped, int4 }, 1)
  await using plain = new Decoder({ mapped }, 1)

  const target_modules = ['q_proj', 'v_proj', 'o_proj', 'up_proj', 'down_proj']
  const layout = loraLayout(mapped, { rank: 4, alpha: 8, target_modules })
  const { data } = randomTensor([layout.parameters], 1, [-0.1, 0.1])
  const after = async (on: Decoder) => {
    const tuned = await on.lay(layout, data)
    return [await together(on, [tuned, undefined, tuned]), await together(on, [undefined])].flat()
  }
  const [got, want] = [await after(served), await after(plain)]
  for (const [i, row] of got.entries())
    expect(most(row, want[i]!) / Math.max(...want[i]!.map(Math.abs)), `row ${i}`).toBeLessThan(0.1)
  expect(most(got[0]!, got[3]!)).toBeGreaterThan(1e-2) // the same prompt by the base

  const tokens = Array.from({ length: 9 }, (_, k) => (11 * k) % 256)
  const read = (on: Decoder, everywhere: boolean) => {
    const fresh = on.newCache()
    fresh.open(tokens.length)
    return on.read(fresh, 0, tokens, { everywhere })
  }
  expect(await read(served, true)).toEqual(await read(four, true))
  expect(most((await read(served, false))[0]!, (await read(four, false))[0]!)).toBeGreaterThan(0)
})
