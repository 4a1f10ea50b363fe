import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  type Adapter,
  parseAdapterConfig,
  readAdapter,
  writeAdapter,
  writeAdapterConfig,
} from '../../../../src/engine/weights/adapter.ts'
import { writeSafetensors } from '../../../../src/engine/weights/safetensors.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

const numbers = (n: number, from: number) => Float32Array.from({ length: n }, (_, i) => from + i)
const adapter: Adapter = {
  config: {
    r: 2,
    lora_alpha: 4,
    target_modules: ['q_proj', 'v_proj'],
    lora_dropout: 0.1,
    use_rslora: true,
    use_dora: false,
    base_model_name_or_path: 'tiny',
  },
  pairs: new Map([
    [
      'model.layers.0.self_attn.q_proj',
      { a: numbers(6, 0), b: numbers(8, 10), in_features: 3, out_features: 4 },
    ],
    [
      'model.layers.0.self_attn.v_proj',
      { a: numbers(6, 20), b: numbers(2, 30), in_features: 3, out_features: 1 },
    ],
  ]),
}

function folderOf(model: Uint8Array, config: string): string {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'adapter_config.json'), config)
  const file = join(folder, 'adapter_model.safetensors')
  writeFileSync(file, model)
  return file
}

test('an adapter is read as it was written', async () => {
  const file = folderOf(writeAdapter(adapter), writeAdapterConfig(adapter.config))
  expect(await readAdapter(file)).toMatchObject(adapter)
})

test('lengths of DoRA are read as they were written', async () => {
  const config = { ...adapter.config, use_dora: true }
  const pairs = new Map(
    [...adapter.pairs].map(([name, pair]) => [
      name,
      { ...pair, magnitude: numbers(pair.out_features, 40) },
    ]),
  )
  const dora = { config, pairs }
  const file = folderOf(writeAdapter(dora), writeAdapterConfig(config))
  expect(await readAdapter(file)).toMatchObject(dora)
  const without = folderOf(writeAdapter(adapter), writeAdapterConfig(config))
  await expect(readAdapter(without)).rejects.toThrow('has no lora_magnitude_vector beside it')
  const unasked = folderOf(writeAdapter(dora), writeAdapterConfig(adapter.config))
  await expect(readAdapter(unasked)).rejects.toThrow('is not a LoRA matrix')
})

test('the same adapter gives the same bytes in whatever order its pairs are', () => {
  const reversed = { ...adapter, pairs: new Map([...adapter.pairs].reverse()) }
  expect(writeAdapter(reversed)).toEqual(writeAdapter(adapter))
})

test.each([
  ['a lonely A', ['lora_A'], [2, 3], 'has no lora_B beside it'],
  ['a lonely B', ['lora_B'], [3, 2], 'has no lora_A beside it'],
  ['another rank', ['lora_A', 'lora_B'], [3, 2], 'lora_A.weight has shape [3,2], expected rank 2'],
  ['another tensor', ['lora_magnitude'], [3], 'is not a LoRA matrix'],
])('%s is refused by name', async (_, kinds, dims, message) => {
  const tensors = kinds.map((kind) => ({
    name: `base_model.model.model.layers.0.mlp.up_proj.${kind}.weight`,
    dims,
    data: numbers(
      dims.reduce((n, d) => n * d, 1),
      0,
    ),
  }))
  const file = folderOf(writeSafetensors(tensors), writeAdapterConfig(adapter.config))
  await expect(readAdapter(file)).rejects.toThrow(message)
})

test.each([
  ['{', 'not JSON'],
  ['null', 'peft_type undefined is not supported'],
  ['{"peft_type":"IA3"}', 'peft_type "IA3" is not supported'],
  ['{"peft_type":"LORA","lora_bias":true}', 'lora_bias is not supported'],
  ['{"peft_type":"LORA","rank_pattern":{"q_proj":4}}', 'rank_pattern is not supported'],
  ['{"peft_type":"LORA","r":0}', 'r is 0, expected a positive integer'],
  ['{"peft_type":"LORA","r":1,"lora_alpha":"2"}', 'lora_alpha is "2", expected a number'],
  ['{"peft_type":"LORA","r":1,"lora_alpha":2}', 'target_modules is not a list of names'],
])('adapter_config.json %s is refused', (text, message) => {
  expect(() => parseAdapterConfig(text)).toThrow(`adapter_config.json: ${message}`)
})
