// Every way of combining adapters against PEFT's add_weighted_adapter (test/golden/merge_adapters.py).

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { COMBINATIONS } from '../../src/engine/merge/combinations.ts'
import { parseRequested } from '../../src/engine/merge/requested.ts'
import { runRequested } from '../../src/engine/merge/run.ts'
import { type LoraPair, readAdapter } from '../../src/engine/weights/adapter.ts'
import { readSafetensorsHeader } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../support/temporary.ts'

const FIXTURES = fileURLToPath(new URL('./fixtures/merge-adapters/', import.meta.url))
const fileOf = (name: string) => join(FIXTURES, name, 'adapter_model.safetensors')

interface Case {
  adapters: string[]
  combination_type: string
  r: number
  target_modules: string[]
}
const { seed, cases } = JSON.parse(await readFile(join(FIXTURES, 'cases.json'), 'utf8')) as {
  seed: number
  cases: Record<string, Case>
}

async function combine({ r: _, target_modules: __, ...said }: Case) {
  const out = temporaryFolder()
  const models = Object.fromEntries(
    said.adapters.map((name) => [name, { path: '', adapter: fileOf(name) }]),
  )
  const requested = parseRequested({ ...said, random_seed: seed })
  for await (const _ of runRequested(requested, { models, out, threads: 1 }));
  return readAdapter(join(out, 'adapter_model.safetensors'))
}

/** B·A */
function product({ a, b, in_features: inner, out_features: out }: LoraPair): Float64Array {
  const rank = a.length / inner
  const made = new Float64Array(out * inner)
  for (let o = 0; o < out; o++)
    for (let k = 0; k < rank; k++)
      for (let i = 0; i < inner; i++) made[o * inner + i]! += b[o * rank + k]! * a[k * inner + i]!
  return made
}

/** The largest difference, of the largest element. */
function off(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  expect(ours.length).toBe(theirs.length)
  let [difference, most] = [0, 0]
  for (let i = 0; i < theirs.length; i++) {
    difference = Math.max(difference, Math.abs(ours[i]! - theirs[i]!))
    most = Math.max(most, Math.abs(theirs[i]!))
  }
  return difference / most
}

test('every combination has a case', () => {
  const covered = new Set(Object.values(cases).map(({ combination_type }) => combination_type))
  expect([...covered].sort()).toEqual([...COMBINATIONS.keys()].sort())
})

test.each(Object.entries(cases))('%s gives the adapter of PEFT', async (name, said) => {
  const ours = await combine(said)
  expect(ours.config).toMatchObject({
    r: said.r,
    target_modules: said.target_modules,
  })
  expect(ours.config.lora_alpha).toBe(ours.config.r)
  const { tensors } = await readSafetensorsHeader(join(FIXTURES, 'results.safetensors'))
  const of = [...tensors.keys()].filter((key) => key.startsWith(`${name}/`))
  expect(of.length).toBe(2 * ours.pairs.size)
  for (const [module, pair] of ours.pairs) {
    const [a, b] = await Promise.all(
      ['lora_A', 'lora_B'].map((matrix) => readTensor(tensors.get(`${name}/${module}.${matrix}`)!)),
    )
    expect(off(product(pair), product({ ...pair, a: a!, b: b! })), module).toBeLessThan(1e-5)
    // Single vectors of values that lie close together have no digits to hold on to in PEFT's float32 (1.5e-5 at
    // most; 1e-5 is met where it decomposes in float64): there the product is what is compared.
    if (said.combination_type.endsWith('svd') && name !== 'svd_clamp') continue
    expect(off(pair.a, a!), module).toBeLessThan(1e-5)
    expect(off(pair.b, b!), module).toBeLessThan(1e-5)
  }
})

test('ranks that differ are refused where one rank is needed', async () => {
  const said = { ...cases.svd!, combination_type: 'linear' }
  await expect(combine(said)).rejects.toThrow(/ranks are 4, 4, 2.*'linear' takes one rank only/)
})
