// GGUFs through the command line, no server.

import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { luthier } from '../../support/command.ts'
import { fixturePath, readFixture } from '../../support/fixtures.ts'

const LAUNCHER = fileURLToPath(new URL('../../../bin/luthier.js', import.meta.url))

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'luthier-gguf-'))
})
afterEach(() => rmSync(home, { recursive: true, force: true }))

function chat(line: string, ...options: string[]): Promise<string> {
  return new Promise((done) => {
    const env = { ...process.env, LUTHIER_HOME: home, LUTHIER_PRECISION: 'fp32' }
    const child = spawn(process.execPath, [LAUNCHER, 'chat', 'every-type', ...options], { env })
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
    child.on('close', () => done(said))
    child.stdin.end(`${line}\n`)
  })
}

/** Files of converted weights below the home, and when each was written. */
const converted = () =>
  readdirSync(home, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.safetensors') && !name.startsWith('adapter'))
    .map((name) => `${name} ${statSync(join(home, name)).mtimeMs}`)

test('a model of every type answers as in transformers, and is converted once for answers and for training', async () => {
  const golden = await readFixture<{ prompt: string; tokens: number; text: string }>(
    'gguf-every-type.json',
  )
  mkdirSync(join(home, 'models'))
  copyFileSync(fixturePath('gguf-every-type.gguf'), join(home, 'models', 'every-type.gguf'))
  const most = ['--max-tokens', String(golden.tokens)]
  expect(await chat(golden.prompt, ...most)).toContain(golden.text)
  const before = converted()
  expect(before).toHaveLength(1)

  const rows = Array.from({ length: 8 }, (_, i) => ({ text: `Cat ${i} says miaow` }))
  await writeFile(join(home, 'train.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  const out = join(home, 'adapter')
  const trained = await luthier(
    { LUTHIER_HOME: home },
    ...['train', home, '--model', 'every-type', '--out', out, '--epochs', '1'],
  )
  expect(trained.code, trained.stderr).toBe(0)
  expect(converted()).toEqual(before)
})
