// Exports of small models, opened again: the same model must come back, whatever form it left in.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { exportFiles } from '../../../src/engine/export/export.ts'
import type { ExportRequest } from '../../../src/engine/export/request.ts'
import { openTokenizer } from '../../../src/engine/tokenizer/tokenizer.ts'
import { writeAdapter, writeAdapterConfig } from '../../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { readTensor } from '../../../src/engine/weights/stored-tensor.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

let folder: string
let base: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-export-'))
  base = await writeTinyModel(join(folder, 'tiny'), { chat: true })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

async function write(request: Partial<ExportRequest> & Pick<ExportRequest, 'format'>, to: string) {
  const out = join(folder, to)
  const files = await exportFiles({
    source: { base },
    name: 'tiny',
    dtype: 'f32',
    shard_bytes: 1e9,
    ...request,
  })
  for (const { path, bytes, chunks } of files) {
    const parts: Uint8Array[] = []
    for await (const part of chunks()) parts.push(part.slice())
    const all = Buffer.concat(parts)
    expect(all.length).toBe(bytes)
    await mkdir(dirname(join(out, path)), { recursive: true })
    await writeFile(join(out, path), all)
  }
  return { out, paths: files.map(({ path }) => path) }
}

async function expectSame(path: string, tolerance = 0) {
  const [ours, theirs] = [await openCheckpoint(base), await openCheckpoint(path)]
  expect(theirs.chat_template).toBe(ours.chat_template)
  for (const [name, tensor] of ours.tensors) {
    const values = await readTensor(tensor)
    const found = await readTensor(theirs.tensors.get(name)!)
    const off = values.reduce((most, x, i) => Math.max(most, Math.abs(x - found[i]!)), 0)
    expect(off, name).toBeLessThanOrEqual(tolerance)
  }
  const text = 'Once upon a time, é</s>'
  const [a, b] = [await openTokenizer(ours), await openTokenizer(theirs)]
  expect(b.encode(text)).toEqual(a.encode(text))
  expect(b.eos_token_ids).toEqual(a.eos_token_ids)
}

test('a Hugging Face folder comes back bit for bit, in shards too', async () => {
  await expectSame((await write({ format: 'hf' }, 'hf')).out)
  const { out, paths } = await write({ format: 'hf', shard_bytes: 20_000 }, 'shards')
  expect(paths.filter((path) => path.endsWith('.safetensors')).length).toBeGreaterThan(2)
  await expectSame(out)
})

test('a GGUF comes back bit for bit, and turns into a folder again', async () => {
  const { out, paths } = await write({ format: 'gguf' }, 'gguf')
  const file = join(out, paths[0]!)
  await expectSame(file)
  await expectSame((await write({ format: 'hf', source: { base: file } }, 'back')).out)
})

test.each([
  ['f16', 1e-3],
  ['bf16', 6e-3],
  ['q8_0', 5e-3],
  ['q4_1', 0.05],
] as const)('a GGUF in %s is near', async (dtype, tolerance) => {
  const { out, paths } = await write({ format: 'gguf', dtype }, dtype)
  await expectSame(join(out, paths[0]!), tolerance)
})

test('an adapter is folded into the merged folder, and leaves alone as PEFT', async () => {
  const a = Float32Array.from({ length: 2 * 32 }, (_, i) => Math.sin(i))
  const b = Float32Array.from({ length: 32 * 2 }, (_, i) => Math.cos(i))
  const config = {
    r: 2,
    lora_alpha: 6,
    target_modules: ['q_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'tiny',
  }
  const pair = { a, b, in_features: 32, out_features: 32 }
  const name = 'model.layers.1.self_attn.q_proj'
  const place = join(folder, 'adapter')
  await mkdir(place)
  const tuned = join(place, 'adapter_model.safetensors')
  await writeFile(tuned, writeAdapter({ config, pairs: new Map([[name, pair]]) }))
  await writeFile(join(place, 'adapter_config.json'), writeAdapterConfig(config))

  const { out } = await write({ format: 'hf', source: { base, tuned } }, 'merged')
  const before = await readTensor((await openCheckpoint(base)).tensors.get(`${name}.weight`)!)
  const after = await readTensor((await openCheckpoint(out)).tensors.get(`${name}.weight`)!)
  for (const at of [0, 33, 1023]) {
    const [o, i] = [Math.floor(at / 32), at % 32]
    const delta = 3 * (b[o * 2]! * a[i]! + b[o * 2 + 1]! * a[32 + i]!)
    expect(after[at]).toBeCloseTo(before[at]! + delta, 5)
  }
  const { paths } = await write({ format: 'peft', source: { base, tuned } }, 'peft')
  expect(paths).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
})

test('what has no such form is refused', async () => {
  await expect(write({ format: 'peft' }, 'none')).rejects.toThrow('no adapter')
  await expect(write({ format: 'hf', dtype: 'q4_0' }, 'none')).rejects.toThrow(
    'not written as q4_0',
  )
})
