// Every family of decoders through the command line: trained from a folder, asked with its adapter, no server.

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { luthier } from '../../support/command.ts'
import { type TinyModelOptions, writeTinyModel } from '../../support/tiny-model.ts'

const LAUNCHER = fileURLToPath(new URL('../../../bin/luthier.js', import.meta.url))

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'luthier-families-'))
})
afterEach(() => rmSync(home, { recursive: true, force: true }))

const families: [string, TinyModelOptions & { linear: string[] }][] = [
  [
    'llama with a scaled rope and biases',
    {
      config: {
        attention_bias: true,
        mlp_bias: true,
        tie_word_embeddings: false,
        rope_scaling: {
          rope_type: 'llama3',
          factor: 4,
          low_freq_factor: 1,
          high_freq_factor: 4,
          original_max_position_embeddings: 24,
        },
      },
      linear: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    },
  ],
  [
    'mistral, in shards that are links',
    {
      config: { model_type: 'mistral', sliding_window: 8, tie_word_embeddings: false },
      shards: 3,
      linear: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    },
  ],
  [
    'qwen2',
    {
      config: { model_type: 'qwen2' },
      linear: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    },
  ],
  [
    'qwen3',
    {
      config: { model_type: 'qwen3', head_dim: 16 },
      linear: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
    },
  ],
  [
    'gpt2',
    {
      config: { model_type: 'gpt2', n_embd: 32, n_layer: 2, n_head: 4, n_positions: 96 },
      linear: ['c_attn', 'c_proj', 'c_fc'],
    },
  ],
]

/** As the Hub's cache lays models out: names are links to files called by their hash, in another folder. */
function linkFiles(folder: string) {
  const blobs = join(home, 'blobs')
  mkdirSync(blobs)
  for (const [i, file] of readdirSync(folder).entries()) {
    renameSync(join(folder, file), join(blobs, `${i}abcdef`))
    symlinkSync(join(blobs, `${i}abcdef`), join(folder, file))
  }
}

function chat(line: string, ...options: string[]): Promise<string> {
  return new Promise((done) => {
    const env = { ...process.env, LUTHIER_HOME: home }
    const child = spawn(process.execPath, [LAUNCHER, 'chat', 'tiny', ...options], { env })
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
    child.on('close', () => done(said))
    child.stdin.end(`${line}\n`)
  })
}

test.each(families)('%s learns an answer and gives it', async (_, { linear, ...options }) => {
  const model = await writeTinyModel(join(home, 'models', 'tiny'), { chat: true, ...options })
  if (options.shards) linkFiles(model)
  const rows = Array.from({ length: 8 }, (_, i) => ({
    messages: [
      { role: 'user', content: `Cat ${i}` },
      { role: 'assistant', content: 'miaow' },
    ],
  }))
  await writeFile(join(home, 'train.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))

  const out = join(home, 'adapter')
  const settings = ['--epochs', '30', '--batch-size', '4', '--learning-rate', '0.02']
  const trained = await luthier(
    { LUTHIER_HOME: home },
    ...['train', home, '--model', 'tiny', '--out', out, ...settings],
  )
  expect(trained.code, trained.stderr).toBe(0)
  const config = JSON.parse(await readFile(join(out, 'adapter_config.json'), 'utf8'))
  expect(config.target_modules).toEqual(linear)
  expect(config.fan_in_fan_out).toBe(linear.includes('c_attn'))

  expect(await chat('Cat 3', '--adapter', out, '--max-tokens', '16')).toContain('miaow')
  expect(await chat('Cat 3', '--max-tokens', '16')).not.toContain('miaow')
})
