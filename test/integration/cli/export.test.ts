// A tuned model as a folder for others, over HTTP and by luthier export: in files of the size that was asked for, with
// the tokens that were added to its base.

import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import { openTokenizer } from '../../../src/engine/tokenizer/tokenizer.ts'
import { writeAdapter, writeAdapterConfig } from '../../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { readSafetensorsHeader } from '../../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../../src/engine/weights/stored-tensor.ts'
import { type RunningServer, startServer } from '../../../src/server.ts'
import { luthier } from '../../support/command.ts'
import { testLog } from '../../support/log.ts'
import { writeTinyModel } from '../../support/tiny-model.ts'

const SHARD_BYTES = 1_000_000
const LAYERS = 4
const WIDTH = 64
const Q_PROJ = 'model.layers.2.self_attn.q_proj.weight'

let home: string
let server: RunningServer
let model = ''

const run = async (...args: string[]): Promise<string> => {
  const said = await luthier({ LUTHIER_HOME: home, DATABASE_URL: '' }, ...args)
  expect(said, said.stderr).toMatchObject({ code: 0 })
  return said.stdout
}

/** An adapter that adds 1 to each of q_proj's weights. */
function writeOnes(folder: string): void {
  const config = {
    r: 1,
    lora_alpha: 1,
    target_modules: ['q_proj'],
    lora_dropout: 0,
    use_rslora: false,
    use_dora: false,
    base_model_name_or_path: 'words',
  }
  const pair = {
    a: new Float32Array(WIDTH).fill(1),
    b: new Float32Array(WIDTH).fill(1),
    in_features: WIDTH,
    out_features: WIDTH,
  }
  const pairs = new Map(
    Array.from({ length: LAYERS }, (_, i) => [`model.layers.${i}.self_attn.q_proj`, pair]),
  )
  mkdirSync(folder)
  writeFileSync(join(folder, 'adapter_model.safetensors'), writeAdapter({ config, pairs }))
  writeFileSync(join(folder, 'adapter_config.json'), writeAdapterConfig(config))
}

beforeAll(async () => {
  // A short path: the database's socket lies under it.
  home = mkdtempSync(join(tmpdir(), 'luthier-out-'))
  const words = await writeTinyModel(join(home, 'models', 'words'), {
    chat: true,
    config: {
      hidden_size: WIDTH,
      intermediate_size: 512,
      num_hidden_layers: LAYERS,
      vocab_size: 259,
    },
  })
  const tokenizer = JSON.parse(readFileSync(join(words, 'tokenizer.json'), 'utf8'))
  const [known] = tokenizer.added_tokens
  tokenizer.added_tokens.push({ ...known, id: 258, content: '<tool>', special: false })
  writeFileSync(join(words, 'tokenizer.json'), JSON.stringify(tokenizer))
  server = await startServer(readConfig({ PORT: '0', LUTHIER_HOME: home }), testLog)
  const adapter = join(home, 'ones')
  writeOnes(adapter)
  model = /ft:words:\S+/.exec(await run('pull', `file:${adapter}`, '--suffix', 'ones'))![0]
})
afterAll(async () => {
  await server?.close()
  rmSync(home, { recursive: true, force: true })
})

async function download(query: string): Promise<string> {
  const reply = await fetch(
    `${server.url}/v1/models/${encodeURIComponent(model)}/weights?${query}`,
    { headers: { authorization: `Bearer ${server.apiKey}` } },
  )
  expect(reply.status).toBe(200)
  const folder = mkdtempSync(join(home, 'unpacked-'))
  execFileSync('tar', ['-x', '-C', folder], { input: Buffer.from(await reply.arrayBuffer()) })
  return folder
}

const weightsIn = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.safetensors'))
    .sort()

/** The model with its adapter folded in, in files of at most `SHARD_BYTES` of tensors that their index lists. */
async function expectShards(folder: string): Promise<void> {
  const names = weightsIn(folder)
  expect(names).toEqual(['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'])
  const listed: Record<string, string> = {}
  for (const name of names) {
    const { tensors } = await readSafetensorsHeader(join(folder, name))
    const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes, 0)
    expect(bytes).toBeLessThanOrEqual(SHARD_BYTES)
    for (const tensor of tensors.keys()) listed[tensor] = name
  }
  const index = readFileSync(join(folder, 'model.safetensors.index.json'), 'utf8')
  expect(JSON.parse(index).weight_map).toEqual(listed)

  const base = await openCheckpoint(join(home, 'models', 'words'))
  const { tensors } = await openCheckpoint(folder)
  expect([...tensors.keys()].sort()).toEqual([...base.tensors.keys()].sort())
  for (const [name, tensor] of base.tensors) {
    const added = name.endsWith('q_proj.weight') ? 1 : 0
    const [before, after] = [await readTensor(tensor), await readTensor(tensors.get(name)!)]
    const off = after.reduce((most, x, i) => Math.max(most, Math.abs(x - before[i]! - added)), 0)
    expect(off, name).toBeLessThan(1e-6)
  }
  expect(await run('verify', folder)).toContain('as they were signed')
}

test('a merged folder comes in files of the size that was asked for, over HTTP and by command', async () => {
  const sent = await download(`format=hf&shard_bytes=${SHARD_BYTES}`)
  await expectShards(sent)
  const written = join(home, 'written')
  await run('export', model, written, '--shard-bytes', String(SHARD_BYTES))
  await expectShards(written)
  for (const name of weightsIn(sent))
    expect(readFileSync(join(sent, name)).equals(readFileSync(join(written, name))), name).toBe(
      true,
    )
  expect(weightsIn(await download('format=hf'))).toEqual(['model.safetensors'])
})

test('tokens that were added to a base are in its folder, and in its GGUF', async () => {
  const gguf = join(home, 'out.gguf')
  await run('export', model, gguf, '--format', 'gguf', '--dtype', 'f16')
  for (const path of [await download('format=hf'), gguf]) {
    const checkpoint = await openCheckpoint(path)
    expect(checkpoint.config.vocab_size).toBe(259)
    const tokenizer = await openTokenizer(checkpoint)
    expect([...tokenizer.encode('a<tool>b')].slice(-3)).toEqual([97, 258, 98])
    expect(tokenizer.decode([97, 258])).toBe('a<tool>')
    const [q] = await readTensor(checkpoint.tensors.get(Q_PROJ)!)
    const base = await openCheckpoint(join(home, 'models', 'words'))
    expect(q).toBeCloseTo((await readTensor(base.tensors.get(Q_PROJ)!))[0]! + 1, 2)
  }
})
