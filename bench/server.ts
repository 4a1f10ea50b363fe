// A server in a process of its own, on a home that goes with it, and asking it as any client does.

import { spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

// biome-ignore lint/suspicious/noExplicitAny: a bench looks into what it asked for
export type Answer = any

export interface BenchServer extends AsyncDisposable {
  readonly pid: number
  get(path: string): Promise<Answer>
  post(path: string, body: object): Promise<Answer>
  /** The id of the file that the rows become. */
  upload(rows: readonly object[], purpose: string): Promise<string>
  /** Asks until `isEnded`, every second. */
  until(path: string, isEnded: (answer: Answer) => boolean): Promise<Answer>
}

/** Starts it over one base model: a folder or a .gguf file. */
export async function startServer(model: string): Promise<BenchServer> {
  const home = await mkdtemp(join(tmpdir(), 'luthier-bench-'))
  await mkdir(join(home, 'models'))
  await cp(model, join(home, 'models', basename(model)), { recursive: true, dereference: true })
  const apiKey = 'sk-bench'
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: { ...process.env, LUTHIER_HOME: home, LUTHIER_API_KEY: apiKey, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>((done) => child.once('exit', () => done()))
  const url = await new Promise<string>((found, failed) => {
    child.once('exit', (code) => failed(new Error(`The server ended with code ${code}.`)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { msg, url: said } = JSON.parse(line) as { msg: string; url?: string }
      if (msg === 'ready' && said) found(said)
    })
  })
  const ask = async (path: string, init: RequestInit = {}): Promise<Answer> => {
    const reply = await fetch(`${url}/v1${path}`, {
      ...init,
      headers: { authorization: `Bearer ${apiKey}`, ...init.headers },
    })
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`)
    return reply.json()
  }
  /** Asked again where the connection broke: a machine that stood still loses those that were idle. */
  const get = async (path: string): Promise<Answer> => {
    for (let attempt = 1; ; attempt++)
      try {
        return await ask(path)
      } catch (error) {
        if (!(error instanceof TypeError) || attempt === 5) throw error
        await sleep(1000)
      }
  }
  return {
    pid: child.pid!,
    get,
    post: (path, body) =>
      ask(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }),
    async upload(rows, purpose) {
      const form = new FormData()
      form.set('purpose', purpose)
      form.set('file', new Blob(rows.map((row) => `${JSON.stringify(row)}\n`)), 'rows.jsonl')
      return (await ask('/files', { method: 'POST', body: form })).id
    },
    async until(path, isEnded) {
      for (let answer = await get(path); ; answer = await get(path)) {
        if (isEnded(answer)) return answer
        await sleep(1000)
      }
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await ended
      await rm(home, { recursive: true, force: true })
    },
  }
}
