// What is refused before adapters are combined or extracted, and by which words; how an extraction keeps its ranks.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseRequested } from '../../../../src/engine/merge/requested.ts'
import { runRequested } from '../../../../src/engine/merge/run.ts'
import {
  type Adapter,
  readAdapter,
  writeAdapter,
  writeAdapterConfig,
} from '../../../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import {
  readSafetensorsHeader,
  writeSafetensors,
} from '../../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../../../support/temporary.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const MODULE = 'model.layers.0.self_attn.q_proj'

interface Changes {
  config?: Partial<Adapter['config']>
  shape?: [number, number]
  rest?: Partial<Adapter>
}

async function write(folder: string, { config: changes = {}, shape = [4, 6], rest }: Changes = {}) {
  const [out_features, in_features] = shape
  const config = {
    r: 2,
    lora_alpha: 4,
    target_modules: ['q_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'base',
    ...changes,
  }
  const a = Float32Array.from({ length: config.r * in_features }, (_, i) => Math.sin(i + 1))
  const b = Float32Array.from({ length: out_features * config.r }, (_, i) => Math.cos(i + 1))
  const magnitude = config.use_dora && { magnitude: new Float32Array(out_features).fill(1) }
  const pairs = new Map([[MODULE, { a, b, in_features, out_features, ...magnitude }]])
  await mkdir(folder, { recursive: true })
  const file = join(folder, 'adapter_model.safetensors')
  await writeFile(file, writeAdapter({ config, pairs, ...rest }))
  await writeFile(join(folder, 'adapter_config.json'), writeAdapterConfig(config))
  return file
}

async function combine(folder: string, said: object = {}) {
  const text = { adapters: ['one', 'two'], weights: [1, 1], combination_type: 'cat', ...said }
  const adapter = (name: string) => ({
    path: '',
    adapter: join(folder, name, 'adapter_model.safetensors'),
  })
  const models = { one: adapter('one'), two: adapter('two') }
  const request = { models, out: join(folder, 'out'), threads: 1 }
  for await (const _ of runRequested(parseRequested(text), request));
  return readAdapter(join(folder, 'out', 'adapter_model.safetensors'))
}

const head = (name: string) => ({
  config: { modules_to_save: ['score'] },
  rest: { saved: new Map([['score.weight', { dims: [2, 2], data: new Float32Array(4) }]]) },
  name,
})

test.each<[string, Changes, RegExp]>([
  [
    'matrices of another shape',
    { shape: [4, 8] },
    /module model\.layers\.0\.self_attn\.q_proj is \[4,6\] in one and \[4,8\] in two/,
  ],
  ['DoRA', { config: { use_dora: true } }, /two is a DoRA adapter/],
])('is refused before any work: %s', async (_, changes, why) => {
  const folder = temporaryFolder()
  await write(join(folder, 'one'))
  await write(join(folder, 'two'), changes)
  await expect(combine(folder)).rejects.toThrow(why)
})

test('two heads cannot be weighted; one goes along', async () => {
  const folder = temporaryFolder()
  await write(join(folder, 'one'), head('one'))
  await write(join(folder, 'two'), head('two'))
  await expect(combine(folder)).rejects.toThrow(/one and two have each trained modules whole/)
  await write(join(folder, 'one'))
  const { saved, config } = await combine(folder)
  expect([...saved!.keys()]).toEqual(['score.weight'])
  expect(config.modules_to_save).toEqual(['score'])
})

test('an adapter that holds NaN is refused by its module', async () => {
  const folder = temporaryFolder()
  await write(join(folder, 'one'))
  const file = await write(join(folder, 'two'))
  const [tensor] = [...(await readSafetensorsHeader(file)).tensors.values()]
  const bytes = await readFile(file)
  bytes.writeFloatLE(Number.NaN, tensor!.offset)
  await writeFile(file, bytes)
  await expect(combine(folder)).rejects.toThrow(`two: ${MODULE} holds NaN or infinity`)
})

test('an adapter whose header lies about its bytes is refused', async () => {
  const folder = temporaryFolder()
  await write(join(folder, 'one'))
  const file = await write(join(folder, 'two'))
  const bytes = await readFile(file)
  await writeFile(file, bytes.subarray(0, bytes.length - 8))
  await expect(combine(folder)).rejects.toThrow(/adapter_model\.safetensors: tensor .*lora_/)
})

test.each([
  ['no weights', { weights: [] }, "'weights'"],
  ['one weight for two', { weights: [1] }, 'Expected 2, one for each adapter, found 1'],
  ['an unknown way', { combination_type: 'blend' }, "'combination_type'"],
  ['no density', { combination_type: 'ties' }, "'density'"],
  ['a density of 0', { combination_type: 'ties', density: 0 }, "'density'"],
  ['a rank without end', { combination_type: 'svd', svd_rank: 1e9 }, "'svd_rank'"],
  ['an unknown field', { wait: 1 }, "'wait'"],
  ['a search without rows', { search: {} }, "'search.validation_file'"],
  ['a search without end', { search: { validation_file: 'x', budget: 1e9 } }, "'search.budget'"],
  [
    'a search by two measures',
    { search: { validation_file: 'x', eval: 'eval_1' } },
    "'search.eval'",
  ],
  ['a search by an eval without a name', { search: { eval: 7 } }, "'search.eval'"],
  [
    'a density where nothing is pruned',
    { search: { validation_file: 'x', density: [0.1, 1] } },
    "'search.density'",
  ],
])('a text is refused by its field: %s', (_, said, why) => {
  const text = { adapters: ['one', 'two'], weights: [1, 1], combination_type: 'cat', ...said }
  expect(() => parseRequested(text)).toThrow(why)
})

test('an extraction keeps what its rank holds, says what is left, and each module has the rank it needs', async () => {
  const folder = temporaryFolder()
  const base = await writeTinyModel(join(folder, 'base'))
  const tuned = await writeTinyModel(join(folder, 'tuned'))
  const { tensors } = await openCheckpoint(base)
  const changed = await Promise.all(
    [...tensors.values()].map(async (tensor) => {
      const data = (await readTensor(tensor)).slice()
      // Of rank 1 in the first layer, of rank 2 in the second; and a norm, which no adapter holds.
      if (tensor.name.endsWith('0.self_attn.q_proj.weight')) data[5]! += 1
      if (tensor.name.endsWith('1.self_attn.q_proj.weight')) {
        data[0]! += 3
        data[33]! += 1
      }
      if (tensor.name === 'model.norm.weight') data[0]! += 0.5
      return { name: tensor.name, dims: tensor.dims, data }
    }),
  )
  await writeFile(join(tuned, 'model.safetensors'), writeSafetensors(changed))
  const extract = async (said: object, out: string) => {
    const text = {
      extract_adapter: 'tuned',
      base_model: 'base',
      target_modules: ['q_proj'],
      ...said,
    }
    const models = { tuned: { path: tuned }, base: { path: base } }
    let note = ''
    const request = { models, out: join(folder, out), threads: 2 }
    for await (const event of runRequested(parseRequested(text), request))
      if (event.type === 'merged') note = event.note ?? ''
    return { note, ...(await readAdapter(join(folder, out, 'adapter_model.safetensors'))) }
  }
  const one = await extract({ max_rank: 1 }, 'one')
  // 1 and 9 of 1, 9 and 1; beside them 0.25 of the norm.
  expect(one.note).toContain('has 90.91 % of the squared difference of its 2 modules')
  expect(one.note).toMatch(/2\.22 % of the whole difference .* most in model\.norm\.weight/)
  const two = await extract({ max_rank: 4, sv_epsilon: 1e-3 }, 'two')
  expect(two.note).toContain('has 100.00 %')
  const used = ({ b }: { b: Float32Array }) =>
    [0, 1, 2, 3].filter((k) => b.some((x, i) => i % 4 === k && x !== 0)).length
  expect(used(two.pairs.get('model.layers.0.self_attn.q_proj')!)).toBe(1)
  expect(used(two.pairs.get('model.layers.1.self_attn.q_proj')!)).toBe(2)

  await expect(extract({ target_modules: ['x_proj'] }, 'none')).rejects.toThrow('has no x_proj')
  const other = await writeTinyModel(join(folder, 'tuned'), { config: { intermediate_size: 64 } })
  expect(other).toBe(tuned)
  await expect(extract({}, 'never')).rejects.toThrow(
    /tensor \S+mlp\.\S+ has the shape \[\d+,\d+\] in base and \[\d+,\d+\] in tuned/,
  )
})
