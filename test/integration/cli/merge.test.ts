// luthier merge, as an operator runs it: a mergekit YAML in, a model out.

import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openTokenizer } from '../../../src/engine/tokenizer/tokenizer.ts'
import {
  readAdapter,
  writeAdapter,
  writeAdapterConfig,
} from '../../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { readSafetensorsHeader, writeSafetensors } from '../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../src/engine/weights/stored-tensor.ts'
import { luthier } from '../../support/command.ts'
import { temporaryFolder } from '../../support/temporary.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

test('a YAML of mergekit becomes a model in the models folder, which is listed', async () => {
  const home = temporaryFolder()
  const models = join(home, 'models')
  await writeTinyModel(join(models, 'one'), { chat: true })
  await cp(join(models, 'one'), join(models, 'two'), { recursive: true })
  const config = join(home, 'merge.yml')
  await writeFile(
    config,
    `models: [{ model: one }, { model: two }]
merge_method: slerp
base_model: one
parameters: { t: 0.5 }
dtype: bfloat16
`,
  )
  const settings = { LUTHIER_HOME: home, LUTHIER_MODELS: models }
  const out = join(models, 'merged')
  expect(await luthier(settings, 'merge', config, out)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('The model is in'),
  })
  expect(JSON.parse(await readFile(join(out, 'config.json'), 'utf8')).dtype).toBe('bfloat16')

  // What is read is rounded to `dtype`, whatever is written.
  const rounded = join(models, 'rounded')
  await writeFile(
    config,
    'models: [{ model: one }]\nmerge_method: linear\nparameters: { weight: 1 }\ndtype: bfloat16\nout_dtype: float32\n',
  )
  expect(await luthier(settings, 'merge', config, rounded)).toMatchObject({ code: 0 })
  const lowBits = async (folder: string) => {
    const tensor = (await openCheckpoint(folder)).tensors.get('model.layers.0.mlp.up_proj.weight')!
    return new Int32Array((await readTensor(tensor)).buffer).some((bits) => bits & 0xffff)
  }
  expect([await lowBits(join(models, 'one')), await lowBits(rounded)]).toEqual([true, false])

  const listed = await luthier(settings, 'models')
  expect(listed.stdout).toContain('merged')

  await writeFile(config, 'models: [{ model: ../../etc }]\nmerge_method: linear\n')
  const refused = await luthier(settings, 'merge', config, join(home, 'none'))
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('is neither a base model')
})

test('parameters along layers and by filter, slices, types, tokens, template and shards', async () => {
  const home = temporaryFolder()
  const models = join(home, 'models')
  await writeTinyModel(join(models, 'one'), { chat: true })
  // With a token more, and other weights.
  const two = await writeTinyModel(join(models, 'two'), { config: { vocab_size: 259 } })
  const words = JSON.parse(await readFile(join(two, 'tokenizer.json'), 'utf8'))
  words.added_tokens.push({ ...words.added_tokens[0], id: 258, content: '<tool>', special: false })
  await writeFile(join(two, 'tokenizer.json'), JSON.stringify(words))
  const values = async (folder: string) => {
    const { tensors, ...rest } = await openCheckpoint(folder)
    return { ...rest, read: (name: string) => readTensor(tensors.get(name)!), tensors }
  }
  const halved = await values(two)
  const other = [...halved.tensors.values()].map(async ({ name, dims }) => ({
    name,
    dims,
    data: (await halved.read(name)).map((x) => x / 2),
  }))
  await writeFile(join(two, 'model.safetensors'), writeSafetensors(await Promise.all(other)))

  const config = join(home, 'merge.yml')
  await writeFile(
    config,
    `merge_method: task_arithmetic
base_model: one
slices:
  - sources:
      - { model: one, layer_range: [0, 2] }
      - { model: two, layer_range: [0, 2], parameters: { weight: [0, 1] } }
  - sources:
      - { model: one, layer_range: [1, 2] }
      - { model: two, layer_range: [1, 2], parameters: { weight: [{ filter: mlp, value: 1 }, { value: 0 }] } }
dtype: float32
out_dtype: float16
tokenizer_source: union
chat_template: "{{ messages[0]['content'] }}"
max_shard_size: 40K
`,
  )
  const settings = { LUTHIER_HOME: home, LUTHIER_MODELS: models }
  const out = join(models, 'merged')
  const said = await luthier(settings, 'merge', config, out, '--threads', '2')
  expect(said, said.stderr).toMatchObject({ code: 0 })

  const [a, b, merged] = [await values(join(models, 'one')), await values(two), await values(out)]
  expect(merged.config).toMatchObject({ num_hidden_layers: 3, vocab_size: 259 })
  expect(merged.chat_template).toBe("{{ messages[0]['content'] }}")
  expect(new Set([...merged.tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set(['F16']))
  expect(new Set([...merged.tensors.values()].map(({ file }) => file)).size).toBeGreaterThan(1)
  const close = async (layer: number, part: string, of: typeof a, from = layer) => {
    const [x, y] = [
      await merged.read(`model.layers.${layer}.${part}.weight`),
      await of.read(`model.layers.${from}.${part}.weight`),
    ]
    const off = x.reduce((most, v, k) => Math.max(most, Math.abs(v - y[k]!)), 0)
    expect(off, `${layer} ${part}`).toBeLessThan(2e-3)
  }
  await close(0, 'mlp.up_proj', a)
  await close(1, 'self_attn.q_proj', b)
  await close(2, 'mlp.up_proj', b, 1)
  await close(2, 'self_attn.q_proj', a, 1)
  // The token that the base has not has the row of the model that has it.
  const rows = [
    await merged.read('model.embed_tokens.weight'),
    await b.read('model.embed_tokens.weight'),
  ]
  const [own, its] = rows.map((row) => row.subarray(258 * 32, 259 * 32))
  expect(own!.every((x, k) => Math.abs(x - its![k]!) < 1e-3)).toBe(true)
  const tokenizer = await openTokenizer(merged)
  expect([...tokenizer.encode('a<tool>')]).toContain(258)
})

test("encoders are merged with their heads, and a classifier's head is kept as told", async () => {
  const home = temporaryFolder()
  const models = join(home, 'models')
  const [one, two] = ['one', 'two'].map((name) => join(models, name)) as [string, string]
  await writeTinyEncoder(one)
  await writeTinyEncoder(two)
  const { tensors } = await openCheckpoint(two)
  const tripled = [
    ...(await readSafetensorsHeader(join(two, 'model.safetensors'))).tensors.values(),
  ]
  const data = tripled.map(async (tensor) => ({
    name: tensor.name,
    dims: tensor.dims,
    data: (await readTensor(tensor)).map((x) => 3 * x),
  }))
  await writeFile(join(two, 'model.safetensors'), writeSafetensors(await Promise.all(data)))
  const config = join(home, 'merge.yml')
  await writeFile(
    config,
    'merge_method: linear\nmodels: [{ model: one }, { model: two }]\nparameters: { weight: 0.5 }\nclassification_head: two\n',
  )
  const settings = { LUTHIER_HOME: home, LUTHIER_MODELS: models }
  const out = join(models, 'merged')
  expect(await luthier(settings, 'merge', config, out)).toMatchObject({ code: 0 })
  const factor = async (wanted: RegExp, out: string) => {
    const merged = (await readSafetensorsHeader(join(out, 'model.safetensors'))).tensors
    const own = (await readSafetensorsHeader(join(one, 'model.safetensors'))).tensors
    const name = [...merged.keys()].find((key) => wanted.test(key))!
    const [x, y] = [await readTensor(merged.get(name)!), await readTensor(own.get(name)!)]
    return x[3]! / y[3]!
  }
  expect(tensors.size).toBeGreaterThan(10)
  expect(await factor(/layer\.1\.intermediate\.dense\.weight/, out)).toBeCloseTo(2, 5)
  expect(await factor(/^classifier\.weight/, out)).toBeCloseTo(3, 5)
  await writeFile(config, (await readFile(config, 'utf8')).replace(/classification_head.*/, ''))
  const whole = join(models, 'whole')
  expect(await luthier(settings, 'merge', config, whole)).toMatchObject({ code: 0 })
  expect(await factor(/^classifier\.weight/, whole)).toBeCloseTo(2, 5)

  await writeTinyModel(join(models, 'decoder'))
  await writeFile(
    config,
    'merge_method: linear\nmodels: [{ model: one }, { model: decoder }]\nparameters: { weight: 0.5 }\n',
  )
  const refused = await luthier(settings, 'merge', config, join(home, 'none'))
  expect(refused.code).toBe(1)
  expect(refused.stderr).toMatch(/do not fit together: the tensor \S+ /)
})

/** An adapter of q_proj in two layers, by one column; those of columns 3 and 5 are orthogonal. */
async function writeOne(folder: string, column: number) {
  const config = {
    r: 1,
    lora_alpha: 1,
    target_modules: ['q_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'one',
  }
  const pair = (by: number) => ({
    a: Float32Array.from({ length: 32 }, (_, i) => (i === column ? by : 0)),
    b: Float32Array.from({ length: 32 }, (_, o) => (column === 5 && o % 2 === 1 ? -0.25 : 0.25)),
    in_features: 32,
    out_features: 32,
  })
  const pairs = new Map(
    [0, 1].map((layer) => [`model.layers.${layer}.self_attn.q_proj`, pair(layer + 1)]),
  )
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'adapter_model.safetensors'), writeAdapter({ config, pairs }))
  await writeFile(join(folder, 'adapter_config.json'), writeAdapterConfig(config))
}

test('adapters are combined, folded into their base, and extracted from it again', async () => {
  const home = temporaryFolder()
  const models = join(home, 'models')
  await writeTinyModel(join(models, 'one'), { chat: true })
  await writeOne(join(home, 'left'), 3)
  await writeOne(join(home, 'right'), 5)
  const settings = { LUTHIER_HOME: home, LUTHIER_MODELS: models }
  const config = join(home, 'merge.yml')
  const merged = async (text: string, out: string) => {
    await writeFile(config, text)
    const result = await luthier(settings, 'merge', config, join(home, out))
    expect(result).toMatchObject({ code: 0 })
    return result.stdout
  }
  const list = [join(home, 'left'), join(home, 'right')]
  const said = await merged(
    `combination_type: cat\nadapters: ${JSON.stringify(list)}\nweights: [2, -1]\n`,
    'both',
  )
  expect(said).toContain('2 modules')
  const both = await readAdapter(join(home, 'both', 'adapter_model.safetensors'))
  expect(both.config).toMatchObject({ r: 2, lora_alpha: 2, base_model_name_or_path: 'one' })
  const { a } = both.pairs.get('model.layers.1.self_attn.q_proj')!
  expect([a[3], a[32 + 5]]).toEqual([4, -2])

  await merged(
    `merge_method: passthrough\nmodels: [{ model: "one+${join(home, 'both')}" }]\n`,
    'models/folded',
  )
  const told = await merged(
    'extract_adapter: folded\nbase_model: one\nmax_rank: 4\nsv_epsilon: 1e-4\nrank_pattern: { q_proj: 2 }\n',
    'out',
  )
  expect(told).toMatch(/The adapter has (100\.00|99\.9\d) % of the squared difference/)
  const out = await readAdapter(join(home, 'out', 'adapter_model.safetensors'))
  expect(out.config.r).toBe(4)
  const found = out.pairs.get('model.layers.1.self_attn.q_proj')!
  const element = (o: number, i: number) => {
    let sum = 0
    for (let k = 0; k < 4; k++) sum += found.b[o * 4 + k]! * found.a[k * 32 + i]!
    return sum
  }
  expect(element(7, 3)).toBeCloseTo(1, 5)
  expect(element(7, 5)).toBeCloseTo(0.5, 5)
  expect(element(7, 6)).toBeCloseTo(0, 5)
  // Singular values √32 · (1, ½) in one layer and half of them in the other.
  const extraction = 'extract_adapter: folded\nbase_model: one\nmax_rank: 4\n'
  expect(await merged(`${extraction}rank_pattern: { q_proj: 1 }\n`, 'narrow')).toContain(' 80.00 %')
  expect(await merged(`${extraction}sv_epsilon: 2\n`, 'cut')).toContain(' 96.00 %')
})
