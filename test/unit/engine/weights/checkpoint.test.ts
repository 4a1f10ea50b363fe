import {
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type MappedTensor, openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import {
  type ModelConfig,
  parseModelConfig,
  requiredTensors,
} from '../../../../src/engine/weights/model-config.ts'
import { writeSafetensors } from '../../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

const CONFIG = {
  model_type: 'llama',
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 5,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
}

const tensorsOf = (config: ModelConfig) =>
  [...requiredTensors(config)].map(([name, dims], i) => ({
    name,
    dims,
    data: new Float32Array(dims.reduce((n, d) => n * d, 1)).fill(i + 1),
  }))

function model(config: Record<string, unknown> = CONFIG): string {
  const folder = join(temporaryFolder(), 'tiny')
  mkdirSync(folder)
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  writeFileSync(
    join(folder, 'model.safetensors'),
    writeSafetensors(tensorsOf(parseModelConfig(CONFIG, 'test'))),
  )
  return folder
}

const floats = ({ file, offset, bytes }: MappedTensor) =>
  new Float32Array(new Uint8Array(readFileSync(file)).slice(offset, offset + bytes).buffer)

test('a folder opens with defaults filled in as transformers does', async () => {
  const { id, config, chat_template, tensors } = await openCheckpoint(model())
  expect(id).toBe('tiny')
  const { rms_norm_eps, ...same } = CONFIG
  expect(config).toEqual({ ...same, norm_eps: rms_norm_eps, head_dim: 4, rope_theta: 10_000 })
  expect(chat_template).toBeUndefined()
  expect(tensors.size).toBe(11)
})

test.each([
  ['a string', { 'tokenizer_config.json': '{"chat_template": "A"}' }, 'A'],
  [
    'a list',
    {
      'tokenizer_config.json':
        '{"chat_template": [{"name":"tool_use","template":"B"},{"name":"default","template":"A"}]}',
    },
    'A',
  ],
  [
    'a file of its own, which goes first',
    { 'tokenizer_config.json': '{"chat_template": "B"}', 'chat_template.jinja': 'A' },
    'A',
  ],
])('the chat template is found: %s', async (_, files, expected) => {
  const folder = model()
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  expect((await openCheckpoint(folder)).chat_template).toBe(expected)
})

test('rope_theta of transformers 5 is read', async () => {
  const { config } = await openCheckpoint(
    model({ ...CONFIG, rope_parameters: { rope_type: 'default', rope_theta: 5e5 } }),
  )
  expect(config.rope_theta).toBe(5e5)
})

test.each([
  ['another family', { model_type: 'mamba' }, 'model_type "mamba" is not supported'],
  [
    'a rope that grows with the text',
    { rope_scaling: { type: 'dynamic', factor: 8 } },
    'rope scaling of type dynamic is not supported',
  ],
  [
    'a scaled rope that does not say how',
    { rope_scaling: { rope_type: 'llama3', factor: 8 } },
    'low_freq_factor of the scaled rope is undefined, expected a positive number',
  ],
  ['half a rope', { partial_rotary_factor: 0.5 }, 'partial_rotary_factor 0.5 is not supported'],
  ['another activation', { hidden_act: 'gelu' }, 'hidden_act gelu is not supported'],
  ['layers without end', { num_hidden_layers: 1e12 }, '1000000000000 layers are more than any'],
  ['no layers', { num_hidden_layers: 0 }, 'num_hidden_layers is 0, expected a positive integer'],
  ['a size as text', { hidden_size: '8' }, 'hidden_size is "8", expected a positive integer'],
  ['heads that do not divide', { num_attention_heads: 3 }, 'head_dim is 2.6666666666666665'],
  [
    'uneven key-value heads',
    { num_attention_heads: 4, num_key_value_heads: 3 },
    '4 attention heads do not share 3 key-value heads evenly',
  ],
])('a config with %s is refused', async (_, change, message) => {
  await expect(openCheckpoint(model({ ...CONFIG, ...change }))).rejects.toThrow(
    `tiny: config.json: ${message}`,
  )
})

test('what is missing is named', async () => {
  const folder = temporaryFolder()
  await expect(openCheckpoint(join(folder, 'none'))).rejects.toThrow('none: there is no such model')
  await expect(openCheckpoint(folder)).rejects.toThrow('config.json is missing')
  writeFileSync(join(folder, 'config.json'), '{')
  await expect(openCheckpoint(folder)).rejects.toThrow('config.json is not JSON')
  writeFileSync(join(folder, 'config.json'), JSON.stringify(CONFIG))
  await expect(openCheckpoint(folder)).rejects.toThrow('neither model.safetensors nor')
  writeFileSync(join(folder, 'x.bin'), '')
  await expect(openCheckpoint(join(folder, 'x.bin'))).rejects.toThrow('or a .gguf file')
})

test('a missing tensor and a wrong shape are named', async () => {
  await expect(openCheckpoint(model({ ...CONFIG, tie_word_embeddings: false }))).rejects.toThrow(
    'tiny: tensor lm_head.weight is missing',
  )
  await expect(openCheckpoint(model({ ...CONFIG, vocab_size: 6 }))).rejects.toThrow(
    'model.safetensors: tensor model.embed_tokens.weight has shape [5,8], expected [6,8]',
  )
})

test('float32 weights are mapped where they lie, links followed', async () => {
  const folder = model()
  const linked = temporaryFolder()
  symlinkSync(join(folder, 'model.safetensors'), join(linked, 'model.safetensors'))
  writeFileSync(join(linked, 'config.json'), JSON.stringify(CONFIG))
  const cache = temporaryFolder()
  for (const path of [folder, linked]) {
    const mapped = await mapWeights(await openCheckpoint(path), cache)
    const norm = mapped.tensors.get('model.norm.weight')!
    expect(norm.file).toBe(join(folder, 'model.safetensors'))
    expect(floats(norm)).toEqual(new Float32Array(8).fill(11))
  }
  expect(readdirSync(cache)).toEqual([])
})

const ALL_TYPES = new URL('../../../golden/fixtures/gguf-all-types.gguf', import.meta.url)

test('other weights are converted once, aligned to 64 bytes, and again when the source changes', async () => {
  const file = join(temporaryFolder(), 'm.gguf')
  writeFileSync(file, readFileSync(ALL_TYPES))
  const checkpoint = await openCheckpoint(file)
  const cache = join(temporaryFolder(), 'deep', 'cache')

  const [mapped] = await Promise.all([mapWeights(checkpoint, cache), mapWeights(checkpoint, cache)])
  expect(readdirSync(cache)).toHaveLength(1)
  expect(mapped.tensors.size).toBe(checkpoint.tensors.size)
  for (const [name, tensor] of mapped.tensors) {
    expect(tensor.offset % 64).toBe(0)
    expect(floats(tensor)).toEqual(await readTensor(checkpoint.tensors.get(name)!))
  }

  await mapWeights(checkpoint, cache)
  expect(readdirSync(cache)).toHaveLength(1)
  utimesSync(file, 1, 1)
  await mapWeights(checkpoint, cache)
  expect(readdirSync(cache)).toHaveLength(2)
})

test('a source that is cut while it is converted leaves nothing in the cache', async () => {
  const file = join(temporaryFolder(), 'm.gguf')
  const bytes = readFileSync(ALL_TYPES)
  writeFileSync(file, bytes)
  const checkpoint = await openCheckpoint(file)
  writeFileSync(file, bytes.subarray(0, 50_000))
  const cache = temporaryFolder()
  await expect(mapWeights(checkpoint, cache)).rejects.toThrow(
    /m\.gguf: tensor .* the file ends inside/,
  )
  expect(readdirSync(cache)).toEqual([])
})
