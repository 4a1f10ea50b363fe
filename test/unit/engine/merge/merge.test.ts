// Merging whole folders: what is refused before any work, what goes on after a stop, what comes out.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { exportFiles } from '../../../../src/engine/export/export.ts'
import { keyOf, namedModels, parseMergeConfig } from '../../../../src/engine/merge/config.ts'
import { merge } from '../../../../src/engine/merge/merge.ts'
import { readMergeText } from '../../../../src/engine/merge/yaml.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { writeAdapter, writeAdapterConfig } from '../../../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { writeSafetensors } from '../../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../../src/engine/weights/stored-tensor.ts'
import { writeWholeModel } from '../../../../src/engine/weights/whole-model.ts'
import { temporaryFolder } from '../../../support/temporary.ts'
import { writeTinyEncoder } from '../../../support/tiny-encoder.ts'
import { writeTinyModel } from '../../../support/tiny-model.ts'

const DARE = `
merge_method: dare_ties
base_model: a
models:
  - model: b
    parameters: { weight: 0.6, density: 0.5 }
parameters: { lambda: 1.1 }
out_dtype: bfloat16
max_shard_size: 20K
`

/** `a`, and `b` with every weight halved. */
async function twoModels(folder: string) {
  await writeTinyModel(join(folder, 'a'), { chat: true })
  await writeTinyModel(join(folder, 'b'))
  const { tensors } = await openCheckpoint(join(folder, 'a'))
  const halved = await Promise.all(
    [...tensors.values()].map(async ({ name, dims, ...tensor }) => ({
      name,
      dims,
      data: (await readTensor({ name, dims, ...tensor })).map((x) => x / 2),
    })),
  )
  await writeFile(join(folder, 'b', 'model.safetensors'), writeSafetensors(halved))
}

function run(
  text: string,
  folder: string,
  { out = 'out', signal = new AbortController().signal } = {},
) {
  const config = parseMergeConfig(readMergeText(text)[0])
  const models = Object.fromEntries(
    namedModels(config).map((name) => [
      keyOf(name),
      {
        path: join(folder, name.model),
        ...(name.adapter && { adapter: join(folder, name.adapter, 'adapter_model.safetensors') }),
      },
    ]),
  )
  return merge({ config, models, out: join(folder, out), threads: 2 }, signal)
}

const toEnd = async (events: AsyncIterable<unknown>) => {
  for await (const _ of events);
}

test('a merge that was stopped goes on and gives the same bytes, in shards that open as a model', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  await toEnd(run(DARE, folder, { out: 'straight' }))
  const stop = new AbortController()
  const stopped = run(DARE, folder, { out: 'resumed', signal: stop.signal })
  await expect(async () => {
    for await (const event of stopped)
      if (event.type === 'tensor' && event.done === 5) stop.abort(new Error('stopped'))
  }).rejects.toThrow('stopped')
  await expect(openCheckpoint(join(folder, 'resumed'))).rejects.toThrow('config.json is missing')

  const again = run(DARE, folder, { out: 'resumed' })
  const first = await again.next()
  expect(first.value).toMatchObject({ type: 'planned', done: expect.any(Number) })
  expect((first.value as { done: number }).done).toBeGreaterThanOrEqual(5)
  await toEnd(again)

  const { tensors, chat_template } = await openCheckpoint(join(folder, 'resumed'))
  const shards = [...new Set([...tensors.values()].map(({ file }) => file))]
  expect(shards.length).toBeGreaterThan(1)
  expect(chat_template).toContain('<assistant>')
  for (const shard of shards)
    expect(await readFile(shard)).toEqual(await readFile(shard.replace('resumed', 'straight')))
})

test('slices stack layers, and the config counts them', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  const text = `
merge_method: passthrough
slices:
  - sources: [{ model: a, layer_range: [0, 2] }]
  - sources: [{ model: b, layer_range: [1, 2] }]
`
  await toEnd(run(text, folder))
  const { config, tensors } = await openCheckpoint(join(folder, 'out'))
  expect(config.num_hidden_layers).toBe(3)
  const b = await openCheckpoint(join(folder, 'b'))
  const name = (i: number) => `model.layers.${i}.mlp.up_proj.weight`
  expect(await readTensor(tensors.get(name(2))!)).toEqual(await readTensor(b.tensors.get(name(1))!))
})

test("a classifier's head is merged, or kept as told", async () => {
  const folder = temporaryFolder()
  await writeTinyEncoder(join(folder, 'a'))
  await writeTinyEncoder(join(folder, 'b'))
  const { tensors } = await openCheckpoint(join(folder, 'a'))
  const doubled = await Promise.all(
    [...tensors.values()].map(async (tensor) => ({
      name: tensor.name,
      dims: tensor.dims,
      data: (await readTensor(tensor)).map((x) => 3 * x),
    })),
  )
  await writeFile(join(folder, 'b', 'model.safetensors'), writeSafetensors(doubled))
  const linear = (rest: string) =>
    `{merge_method: linear, models: [{model: a}, {model: b}], parameters: {weight: 1}${rest}}`
  const head = async (out: string) =>
    readTensor((await openCheckpoint(join(folder, out))).tensors.get('classifier.weight')!)
  await toEnd(run(linear(''), folder, { out: 'merged' }))
  await toEnd(run(linear(', classification_head: b'), folder, { out: 'kept' }))
  expect(Array.from(await head('merged'))).toEqual(
    Array.from(await head('a'), (x) => Math.fround(2 * x)),
  )
  expect(await head('kept')).toEqual(await head('b'))
})

const ONE = 'merge_method: linear\nparameters: { weight: 1 }\n'

async function writeTuned(folder: string, adapter: Uint8Array, config: string) {
  await mkdir(folder)
  await writeFile(join(folder, 'adapter_model.safetensors'), adapter)
  await writeFile(join(folder, 'adapter_config.json'), config)
}

test('an adapter is folded in: DoRA, and what was trained whole, with tokens that the base has not', async () => {
  const folder = temporaryFolder()
  await writeTinyModel(join(folder, 'a'))
  const a = await openCheckpoint(join(folder, 'a'))
  const config = {
    r: 2,
    lora_alpha: 6,
    target_modules: ['k_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: true,
    base_model_name_or_path: 'a',
    modules_to_save: ['embed_tokens'],
  }
  const module = 'model.layers.1.self_attn.k_proj'
  const [inner, out] = [32, 16]
  const low = Float32Array.from({ length: 2 * inner }, (_, i) => Math.sin(i))
  const high = Float32Array.from({ length: out * 2 }, (_, i) => Math.cos(i))
  const magnitude = Float32Array.from({ length: out }, (_, i) => 1 + i / 8)
  const pair = { a: low, b: high, magnitude, in_features: inner, out_features: out }
  const table = {
    dims: [260, 32],
    data: Float32Array.from({ length: 260 * 32 }, (_, i) => i / 999),
  }
  const saved = new Map([['model.embed_tokens.weight', table]])
  const adapter = writeAdapter({ config, pairs: new Map([[module, pair]]), saved })
  await writeTuned(join(folder, 'tuned'), adapter, writeAdapterConfig(config))
  await toEnd(run(`${ONE}models: [{ model: a+tuned }]`, folder))

  const merged = await openCheckpoint(join(folder, 'out'))
  expect(merged.config.vocab_size).toBe(260)
  const read = async (name: string) => readTensor(merged.tensors.get(name)!)
  expect(await read('model.embed_tokens.weight')).toEqual(table.data)
  const before = await readTensor(a.tensors.get(`${module}.weight`)!)
  const after = await read(`${module}.weight`)
  for (let o = 0; o < out; o++) {
    const row = Array.from({ length: inner }, (_, i) => {
      const delta = high[o * 2]! * low[i]! + high[o * 2 + 1]! * low[inner + i]!
      return before[o * inner + i]! + (6 / 2) * delta
    })
    const length = Math.hypot(...row)
    for (const [i, x] of row.entries())
      expect(after[o * inner + i]).toBeCloseTo((magnitude[o]! * x) / length, 5)
  }
  const other = 'model.layers.0.self_attn.k_proj.weight'
  expect(await read(other)).toEqual(await readTensor(a.tensors.get(other)!))
})

test('an adapter for other shapes is refused by the tensor and both shapes', async () => {
  const folder = temporaryFolder()
  await writeTinyModel(join(folder, 'a'))
  const config = {
    r: 1,
    lora_alpha: 1,
    target_modules: ['q_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'a',
  }
  const pair = {
    a: new Float32Array(16),
    b: new Float32Array(32),
    in_features: 16,
    out_features: 32,
  }
  const pairs = new Map([['model.layers.0.self_attn.q_proj', pair]])
  await writeTuned(
    join(folder, 'tuned'),
    writeAdapter({ config, pairs }),
    writeAdapterConfig(config),
  )
  await expect(run(`${ONE}models: [{ model: a+tuned }]`, folder).next()).rejects.toThrow(
    'the tensor model.layers.0.self_attn.q_proj.weight has the shape [32,32], and the adapter in a+tuned is of [32,16]',
  )
})

test('a model of which all weights were trained goes in as it was trained', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  const [a, b] = [await openCheckpoint(join(folder, 'a')), await openCheckpoint(join(folder, 'b'))]
  const tensors = await Promise.all(
    [...b.tensors.values()].map(async (tensor) => ({
      name: tensor.name,
      dims: tensor.dims,
      data: await readTensor(tensor),
    })),
  )
  const { adapter, adapter_config } = await writeWholeModel(a, tensors)
  await writeTuned(join(folder, 'tuned'), adapter, adapter_config)
  await toEnd(run(`${ONE}models: [{ model: a+tuned }]`, folder))
  const merged = await openCheckpoint(join(folder, 'out'))
  for (const { name, data } of tensors)
    expect(await readTensor(merged.tensors.get(name)!), name).toEqual(data)
})

async function writeGguf(folder: string, name: string) {
  const [file] = await exportFiles({
    source: { base: join(folder, name) },
    name,
    format: 'gguf',
    dtype: 'f32',
    shard_bytes: 1e9,
  })
  await writeFile(join(folder, `${name}.gguf`), await buffer(Readable.from(file!.chunks())))
}

test('a GGUF may be the first: its config and tokenizer are written as a folder has them', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  await writeGguf(folder, 'a')
  await toEnd(run(`${ONE}models: [{ model: a.gguf }, { model: b }]`, folder))
  const [a, merged] = [
    await openCheckpoint(join(folder, 'a')),
    await openCheckpoint(join(folder, 'out')),
  ]
  expect(merged.config).toMatchObject({ num_hidden_layers: 2, hidden_size: 32 })
  expect(merged.chat_template).toBe(a.chat_template)
  // a and its half, at equal weights
  for (const [name, tensor] of a.tensors)
    expect(await readTensor(merged.tensors.get(name)!), name).toEqual(
      (await readTensor(tensor)).map((x) => 0.75 * x),
    )
  const [ours, theirs] = [await openTokenizer(a), await openTokenizer(merged)]
  expect(theirs.encode('Once, é</s>')).toEqual(ours.encode('Once, é</s>'))
})

test('a GGUF of a family whose config nobody can write cannot be the first, and is told why', async () => {
  const folder = temporaryFolder()
  await writeTinyModel(join(folder, 'g'), {
    config: { model_type: 'gpt2', n_embd: 32, n_layer: 2, n_head: 4, n_positions: 96 },
  })
  await writeGguf(folder, 'g')
  await expect(run(`${ONE}models: [{ model: g.gguf }]`, folder).next()).rejects.toThrow(
    'g.gguf: the base model (or the first) must be a Hugging Face folder. A Hugging Face folder of a gpt2 is not made from a GGUF.',
  )
})

test('models that do not fit are refused by the first tensor and both shapes, before any work', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  await writeTinyModel(join(folder, 'b'), { config: { intermediate_size: 64 } })
  const refused = run(DARE, folder)
  await expect(refused.next()).rejects.toThrow(
    /do not fit together: the tensor model\.layers\.0\.mlp\.\w+\.weight has the shape \[.*48.*\] in a and \[.*64.*\] in b|has the shape \[.*64.*\] in b and \[.*48.*\] in a/,
  )
  await expect(readFile(join(folder, 'out', '.merge.jsonl'))).rejects.toThrow('ENOENT')
})

test('weights that are no numbers are refused by their tensor', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  const file = join(folder, 'b', 'model.safetensors')
  const bytes = await readFile(file)
  const tensor = (await openCheckpoint(join(folder, 'b'))).tensors.get('model.norm.weight')!
  bytes.writeFloatLE(Number.NaN, tensor.offset)
  await writeFile(file, bytes)
  await expect(toEnd(run(DARE, folder))).rejects.toThrow(
    'tensor model.norm.weight: its weights hold NaN',
  )
})

test('a shard index that points out of its folder is refused', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  await writeTinyModel(join(folder, 'c'), { shards: 2 })
  const index = join(folder, 'c', 'model.safetensors.index.json')
  const json = JSON.parse(await readFile(index, 'utf8'))
  json.weight_map['model.norm.weight'] = '../b/model.safetensors'
  await writeFile(index, JSON.stringify(json))
  await expect(run(DARE.replace('model: b', 'model: c'), folder).next()).rejects.toThrow(
    'no file name',
  )
})

test.each([
  [
    'aliases upon aliases',
    `a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n${Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(10).fill(`*a${i}`)}]`).join('\n')}`,
    'alias',
  ],
  ['a text without end', 'x'.repeat(300_000), 'KiB'],
  ['brackets in brackets', `${'['.repeat(40)}${']'.repeat(40)}`, 'levels deep'],
  ['a mistake', 'merge_method: linear\nmodels: [}', 'line 2'],
])('YAML is read with limits: %s', (_, text, why) => {
  expect(() => readMergeText(text)).toThrow(why)
})

test.each([
  ['an unknown method', '{merge_method: blend, models: [{model: a}]}', "'merge_method'"],
  ['an unknown field', '{merge_method: linear, models: [{model: a}], wait: 1}', "'wait'"],
  ['a missing base', '{merge_method: ties, models: [{model: a}, {model: b}]}', "'base_model'"],
  [
    'too many models',
    '{merge_method: slerp, base_model: a, models: [{model: b}, {model: c}]}',
    'takes 1 models',
  ],
  [
    'no number',
    '{merge_method: linear, models: [{model: a, parameters: {weight: {x: 1}}}]}',
    "'models[0].parameters.weight'",
  ],
])('a text that says no merge is refused by its field: %s', (_, text, field) => {
  expect(() => parseMergeConfig(readMergeText(text)[0])).toThrow(field)
})

// The structures of mergekit's own examples, written anew.
test.each([
  [
    'gradients over slices',
    `
slices:
  - sources:
      - { model: org/one-7B, layer_range: [0, 32] }
      - { model: org/two-7B, layer_range: [0, 32] }
merge_method: slerp
base_model: org/one-7B
parameters:
  t:
    - { filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1] }
    - { filter: mlp, value: [1, 0.5, 0.7, 0.3, 0] }
    - value: 0.5 # fallback
dtype: float16
`,
  ],
  [
    'weights by model',
    `
models:
  - model: org/one-13B
    parameters: { density: [1, 0.7, 0.1], weight: 1.0 }
  - model: org/two-13B
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: org/three-13B+org/lora
    parameters:
      density: 0.33
      weight:
        - { filter: mlp, value: 0.5 }
        - value: 0
merge_method: ties
base_model: org/base-13B
parameters: { normalize: true, int8_mask: true }
dtype: float16
`,
  ],
  [
    'stacked layers',
    `
slices:
  - sources: [{ model: org/one, layer_range: [0, 24] }]
  - sources: [{ model: org/two, layer_range: [20, 32], parameters: { scale: [{ filter: o_proj, value: 0.0 }, { value: 1e-1 }] } }]
merge_method: passthrough
tokenizer_source: union
dtype: bfloat16
`,
  ],
  [
    'several in one text',
    `
name: first
merge_method: task_arithmetic
base_model: org/base
models: [{ model: org/one, parameters: { weight: 1 } }]
---
name: second
merge_method: linear
models: [{ model: first, parameters: { weight: "5e-1" } }, { model: { model: { path: org/two } }, parameters: { weight: 0.5 } }]
tokenizer: { source: org/two, tokens: { "<x>": { source: { kind: zero } } } }
out_dtype: torch.bfloat16
chat_template: auto
`,
  ],
])('an example of mergekit is read: %s', (_, text) => {
  for (const document of readMergeText(text)) parseMergeConfig(document)
})

test('a row is not asked of a model that has it not', async () => {
  const folder = temporaryFolder()
  await twoModels(folder)
  const told = (source: string) =>
    `${DARE}tokenizer: { source: union, tokens: { "</s>": { source: { kind: model_token, ${source} } } } }`
  await run(told('model: b, token: "<s>"'), folder).next()
  await expect(run(told('model: b, token: "<none>"'), folder).next()).rejects.toThrow(
    'b has no token "<none>"',
  )
  await expect(run(told('model: c, token: "<s>"'), folder).next()).rejects.toThrow('c')
})
