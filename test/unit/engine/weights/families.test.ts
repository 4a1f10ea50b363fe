import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../../../src/engine/weights/mapped.ts'
import {
  familyOf,
  parseModelConfig,
  requiredTensors,
} from '../../../../src/engine/weights/model-config.ts'
import { type NamedTensor, writeSafetensors } from '../../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

const DECODER = {
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 5,
}
const GPT2 = {
  model_type: 'gpt2',
  n_embd: 8,
  n_layer: 1,
  n_head: 2,
  n_positions: 16,
  vocab_size: 5,
}

const parse = (json: Record<string, unknown>) => parseModelConfig(json, 'config.json')

const full = [null, null, null]
test.each([
  ['mistral', {}, [4096, 4096, 4096]],
  ['mistral', { sliding_window: 8 }, [8, 8, 8]],
  ['mistral', { sliding_window: null }, undefined],
  ['qwen2', { sliding_window: 8, max_window_layers: 1 }, undefined],
  ['qwen2', { use_sliding_window: true, sliding_window: 8, max_window_layers: 1 }, [null, 8, 8]],
  ['qwen3', { use_sliding_window: true, sliding_window: 8 }, full],
  [
    'qwen3',
    {
      use_sliding_window: true,
      sliding_window: 8,
      layer_types: ['sliding_attention', 'full_attention', 'sliding_attention'],
    },
    [8, null, 8],
  ],
])('windows of %s with %j, as transformers has them', (model_type, fields, windows) => {
  expect(parse({ ...DECODER, model_type, ...fields }).sliding_windows).toEqual(windows)
})

test('what a config leaves out is what transformers puts there', () => {
  const { num_key_value_heads: _, ...config } = { ...DECODER, num_attention_heads: 32 }
  const one = { ...config, hidden_size: 64 }
  expect(parse({ ...one, model_type: 'llama' }).num_key_value_heads).toBe(32)
  expect(parse({ ...one, model_type: 'mistral' }).num_key_value_heads).toBe(8)
  expect(parse({ ...one, model_type: 'mistral', num_key_value_heads: null })).toMatchObject({
    num_key_value_heads: 32,
  })
  expect(parse({ ...one, model_type: 'qwen3' }).head_dim).toBe(128)
  expect(parse({ ...GPT2, n_inner: null })).toMatchObject({
    intermediate_size: 32,
    tie_word_embeddings: true,
    norm_eps: 1e-5,
  })
  expect(parse(GPT2).rope_theta).toBeUndefined()
})

test.each([
  [{ ...GPT2, activation_function: 'relu' }, 'activation_function relu is not supported'],
  [{ ...GPT2, scale_attn_by_inverse_layer_idx: true }, 'only false'],
  [{ ...GPT2, n_head: 3 }, '3 heads do not share n_embd 8 evenly'],
  [
    { ...DECODER, model_type: 'qwen2', use_sliding_window: true, layer_types: ['full_attention'] },
    'layer_types is no list of 3 types',
  ],
  [
    { ...DECODER, model_type: 'qwen3', rope_scaling: { rope_type: 'yarn', factor: 4 } },
    'rope scaling of type yarn is not supported',
  ],
])('%j is refused', (config, message) => {
  expect(() => parse(config)).toThrow(message)
})

/** Tensors as files hold them, each value its own. */
function stored(config: Record<string, unknown>): NamedTensor[] {
  const parsed = parse(config)
  const { linear, fan_in_fan_out } = familyOf(parsed)
  return [...requiredTensors(parsed)].map(([name, dims]) => {
    const turned = fan_in_fan_out && linear.some((layer) => name.endsWith(`.${layer}.weight`))
    const count = dims.reduce((n, d) => n * d, 1)
    return {
      name,
      dims: turned ? [...dims].reverse() : dims,
      data: Float32Array.from({ length: count }, (_, i) => i),
    }
  })
}

test('gpt2 as it lies on the Hub: names without a prefix, masks among them, matrices [in, out]', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'config.json'), JSON.stringify(GPT2))
  const bare = stored(GPT2).map((t) => ({ ...t, name: t.name.replace('transformer.', '') }))
  const mask = { name: 'h.0.attn.bias', dims: [1, 1, 2, 2], data: new Float32Array(4) }
  writeFileSync(join(folder, 'model.safetensors'), writeSafetensors([...bare, mask]))

  const checkpoint = await openCheckpoint(folder)
  expect([...checkpoint.tensors.keys()].sort()).toEqual(
    [...requiredTensors(parse(GPT2)).keys()].sort(),
  )
  const fused = checkpoint.tensors.get('transformer.h.0.attn.c_attn.weight')!
  expect(fused.dims).toEqual([24, 8])
  const values = await readTensor(fused)
  // The file's row i, column o is the model's row o, column i.
  for (let o = 0; o < 24; o++)
    for (let i = 0; i < 8; i++) expect(values[o * 8 + i]).toBe(i * 24 + o)

  const mapped = await mapWeights(checkpoint, temporaryFolder())
  const { file: path, offset, bytes } = mapped.tensors.get(fused.name)!
  const file = new Uint8Array(readFileSync(path)).slice(offset, offset + bytes)
  expect(new Float32Array(file.buffer)).toEqual(values)
})

test('float32 shards behind links are mapped where they lie', async () => {
  const config = { ...DECODER, model_type: 'qwen3', head_dim: 8, tie_word_embeddings: true }
  const [folder, blobs] = [temporaryFolder(), temporaryFolder()]
  const tensors = stored(config)
  const weight_map: Record<string, string> = {}
  for (const [k, shard] of ['a', 'b'].entries()) {
    const part = tensors.filter((_, i) => i % 2 === k)
    for (const { name } of part) weight_map[name] = `${shard}.safetensors`
    mkdirSync(join(blobs, shard))
    writeFileSync(join(blobs, shard, 'hash'), writeSafetensors(part))
    symlinkSync(join(blobs, shard, 'hash'), join(folder, `${shard}.safetensors`))
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map }))

  const mapped = await mapWeights(await openCheckpoint(folder), join(folder, 'unused'))
  expect(mapped.tensors.size).toBe(tensors.length)
  for (const { name, data } of tensors) {
    const { file: path, offset, bytes } = mapped.tensors.get(name)!
    expect(path).toBe(join(blobs, weight_map[name]![0]!, 'hash'))
    const file = new Uint8Array(readFileSync(path)).slice(offset, offset + bytes)
    expect(new Float32Array(file.buffer)).toEqual(data)
  }

  renameSync(join(blobs, 'b', 'hash'), join(blobs, 'b', 'gone'))
  await expect(openCheckpoint(folder)).rejects.toThrow('its shard b.safetensors is missing')
})

test('a GGUF with a tensor that its model would not use is refused', async () => {
  const fixture = new URL(
    '../../../golden/fixtures/families/llama-3/one-layer.gguf',
    import.meta.url,
  )
  const bytes = Buffer.from(readFileSync(fixture))
  const file = join(temporaryFolder(), 'm.gguf')
  // Without the bias of the output projection the file does not say that attention has any.
  bytes.write('blk.1', bytes.indexOf('blk.0.attn_output.bias'))
  writeFileSync(file, bytes)
  await expect(openCheckpoint(file)).rejects.toThrow(
    /blk\.\d\.attn_.+\.bias is not one that llama has/,
  )
})
