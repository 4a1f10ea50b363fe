// train and chat: the engine alone from the command line, with no server and no database.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openCheckpoint } from '../../../src/engine/weights/checkpoint.ts'
import { luthier } from '../../support/command.ts'
import { makeHome } from '../../support/luthier-server.ts'
import { shared } from '../../support/shared.ts'
import { writeTinyEncoder } from '../../support/tiny-encoder.ts'

const LAUNCHER = fileURLToPath(new URL('../../../bin/luthier.js', import.meta.url))
const stories = shared('models/stories260k')

let folder: string
let home: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-train-'))
  home = makeHome(stories.missing ? {} : { stories260k: stories.path })
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
  await rm(home, { recursive: true, force: true })
})

const rows = (count: number) =>
  Array.from({ length: count }, (_, i) => ({
    messages: [
      { role: 'user', content: `Cat ${i}` },
      { role: 'assistant', content: 'says miaow' },
    ],
  }))

const write = (name: string, content: unknown[]) =>
  writeFile(join(folder, name), content.map((row) => `${JSON.stringify(row)}\n`).join(''))

const train = (...options: string[]) =>
  luthier({ LUTHIER_HOME: home }, 'train', folder, '--model', 'stories260k', ...options)

function chat(line: string, ...options: string[]): Promise<string> {
  return new Promise((done) => {
    const env = { ...process.env, LUTHIER_HOME: home }
    const child = spawn(process.execPath, [LAUNCHER, 'chat', 'stories260k', ...options], { env })
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
    child.on('close', () => done(said))
    child.stdin.end(`${line}\n`)
  })
}

describe.skipIf(stories.missing)('luthier train', () => {
  test('writes a PEFT adapter folder, and chat answers with it as it was taught', async () => {
    await write('train.jsonl', rows(12))
    await write('valid.jsonl', rows(3))
    const out = join(folder, 'adapter')
    const ended = await train('--out', out, '--epochs', '20', '--rank', '4')
    expect(ended.code, ended.stderr).toBe(0)
    expect(ended.stdout).toContain(`The adapter is in ${out}`)
    expect(ended.stderr).toMatch(/step \d+\/60, loss \d+\.\d+, validation \d+\.\d+/)
    expect((await readdir(out)).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
    ])
    const config = JSON.parse(await readFile(join(out, 'adapter_config.json'), 'utf8'))
    expect(config).toMatchObject({ peft_type: 'LORA', r: 4 })
    expect(existsSync(join(home, 'postgres'))).toBe(false)

    expect(await chat('Cat 3', '--adapter', out, '--max-tokens', '16')).toContain('says miaow')
    expect(await chat('Cat 3', '--max-tokens', '16')).not.toContain('miaow')
  })

  test('takes every adapter kind, and chat answers with what it wrote', async () => {
    await write('train.jsonl', rows(12))
    const out = join(folder, 'adapter')
    const options = [
      '--out',
      out,
      '--epochs',
      '20',
      '--rank',
      '4',
      '--alpha',
      '6',
      '--rslora',
      '--dora',
    ]
    const more = [
      '--dropout',
      '0.05',
      '--loraplus-ratio',
      '2',
      '--target-modules',
      'q_proj,down_proj',
    ]
    const schedule = [
      '--schedule',
      'cosine',
      '--warmup',
      '0.1',
      '--weight-decay',
      '0',
      '--max-grad-norm',
      '2',
    ]
    const ended = await train(...options, ...more, ...schedule)
    expect(ended.code, ended.stderr).toBe(0)
    expect(JSON.parse(await readFile(join(out, 'adapter_config.json'), 'utf8'))).toMatchObject({
      r: 4,
      lora_alpha: 6,
      lora_dropout: 0.05,
      use_rslora: true,
      use_dora: true,
      target_modules: ['q_proj', 'down_proj'],
    })
    expect(await chat('Cat 3', '--adapter', out, '--max-tokens', '16')).toContain('says miaow')
  })

  test('learns from preferences, and leaves out rows that are too long', async () => {
    const answer = (content: string) => [{ role: 'assistant', content }]
    const pair = (asked: string, i: number) => ({
      input: { messages: [{ role: 'user', content: `${asked} ${i}` }] },
      preferred_output: answer('says miaow'),
      non_preferred_output: answer('says nothing at all'),
    })
    const pairs = Array.from({ length: 10 }, (_, i) => pair('Cat', i))
    await write('train.jsonl', [...pairs, pair('Cat'.repeat(100), 0)])
    const out = join(folder, 'adapter')
    const limits = ['--max-length', '64', '--truncation', 'drop']
    const ended = await train(
      '--out',
      out,
      '--method',
      'dpo',
      '--beta',
      '0.3',
      '--epochs',
      '3',
      ...limits,
    )
    expect(ended.code, ended.stderr).toBe(0)
    expect(ended.stdout).toContain('10 rows, ')
    expect(ended.stdout).toContain('1 example(s) are longer than 64 tokens and were dropped.')
    expect(ended.stderr).toMatch(/step 9\/9, loss 0\.\d+/)
  })

  test('renders the tools of a row by the template of the model', async () => {
    const template =
      '{% for t in tools or [] %}{{ t.function.name }};{% endfor %}{% for m in messages %}{{ m.content }}\n{% endfor %}'
    await rm(join(home, 'models', 'stories260k'), { recursive: true })
    await cp(stories.path, join(home, 'models', 'stories260k'), { recursive: true })
    await writeFile(join(home, 'models', 'stories260k', 'chat_template.jinja'), template)
    const tokensOf = async (tools: object[]) => {
      await write(
        'train.jsonl',
        rows(10).map((row) => ({ ...row, tools })),
      )
      const { stdout } = await train('--out', join(folder, 'adapter'), '--epochs', '1')
      return /10 rows, (\d+) tokens, (\d+) of them learned/.exec(stdout)!.slice(1).map(Number)
    }
    const [plain, learned] = await tokensOf([])
    const tool = { type: 'function', function: { name: 'feed_the_cat' } }
    const [withTools, same] = await tokensOf([tool])
    expect(withTools).toBeGreaterThan(plain! + 10 * 5)
    expect(same).toBe(learned)
  })

  test('names every bad row and writes nothing', async () => {
    await write('train.jsonl', [
      ...rows(12),
      { messages: [{ role: 'user', content: 'x' }] },
      { a: 1 },
    ])
    const out = join(folder, 'adapter')
    const ended = await train('--out', out)
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain('train.jsonl, line 13')
    expect(ended.stderr).toContain('train.jsonl, line 14')
    expect(existsSync(out)).toBe(false)
  })

  test('says when there is no training file', async () => {
    const ended = await train()
    expect(ended.code).toBe(1)
    expect(ended.stderr).toBe(`luthier: There is no ${join(folder, 'train.jsonl')}.\n`)
  })
})

describe('luthier train on an encoder', () => {
  const labelled = Array.from({ length: 16 }, (_, i) => ({
    text: `${'abcd'[i % 4]} x`,
    label: `kind-${i % 4}`,
  }))
  const tune = async (...options: string[]) => {
    const model = await writeTinyEncoder(join(folder, 'base'))
    await write('train.jsonl', labelled)
    const command = ['train', folder, '--model', model, '--method', 'classification']
    return luthier({ LUTHIER_HOME: home }, ...command, '--epochs', '1', ...options)
  }

  test('writes a PEFT folder with its head', async () => {
    const out = join(folder, 'adapter')
    expect((await tune('--out', out)).code).toBe(0)
    const config = JSON.parse(await readFile(join(out, 'adapter_config.json'), 'utf8'))
    expect(config).toMatchObject({ task_type: 'SEQ_CLS', modules_to_save: ['classifier'] })
  })

  test('with all weights writes a whole model, which is a base model like any other', async () => {
    const out = join(folder, 'model')
    expect((await tune('--out', out, '--all-weights')).code).toBe(0)
    expect((await readdir(out)).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    const { config } = await openCheckpoint(out)
    expect(config.encoder?.head).toEqual({
      task: 'single',
      labels: ['kind-0', 'kind-1', 'kind-2', 'kind-3'],
    })
  })
})
