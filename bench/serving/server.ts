// A server in a process of its own on one base model, and streaming clients that time what they hear.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const KEY = 'sk-serving-bench'

export interface BenchServer extends AsyncDisposable {
  readonly model: string
  /** Folder of its converted weights and measured speeds. */
  readonly cache: string
  // biome-ignore lint/suspicious/noExplicitAny: a bench looks into what it asked for
  ask(path: string, init?: RequestInit): Promise<any>
  /** Uploads rows for fine-tuning; gives the file's id. */
  upload(rows: string): Promise<string>
  /** One streamed answer of a plain prompt. */
  stream(body: object, signal?: AbortSignal): Promise<Heard>
  /** Values of /metrics by their whole name, labels included. */
  metrics(): Promise<Map<string, number>>
  /** Resident megabytes, of which the second are anonymous. */
  memory(): [number, number]
}

/** Times in milliseconds. */
export interface Heard {
  readonly first: number
  readonly gaps: readonly number[]
  readonly total: number
  readonly text: string
  /** `finish_reason` and `[DONE]` came. */
  readonly whole: boolean
}

export async function startServer(path: string, env: NodeJS.ProcessEnv = {}): Promise<BenchServer> {
  const home = await mkdtemp(join(tmpdir(), 'luthier-serving-'))
  await mkdir(join(home, 'models'))
  await symlink(resolve(path), join(home, 'models', basename(path)))
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    env: {
      ...process.env,
      LUTHIER_HOME: home,
      LUTHIER_API_KEY: KEY,
      PORT: '0',
      LUTHIER_REQUESTS_PER_MINUTE: '1000000',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const url = await new Promise<string>((found) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { msg, url, level } = JSON.parse(line) as { msg: string; url?: string; level: number }
      if (msg === 'ready' && url) found(url)
      if (level >= 50) console.error(line)
    })
  })
  const headers = { authorization: `Bearer ${KEY}` }
  const model = basename(path, '.gguf')
  const server: BenchServer = {
    model,
    cache: join(home, 'cache', 'weights'),
    async ask(where, init = {}) {
      const reply = await fetch(`${url}/v1${where}`, {
        ...init,
        headers: { ...headers, ...init.headers },
      })
      if (!reply.ok) throw new Error(`${where}: ${reply.status} ${await reply.text()}`)
      return reply.json()
    },
    async upload(rows) {
      const form = new FormData()
      form.set('purpose', 'fine-tune')
      form.set('file', new Blob([rows]), 'rows.jsonl')
      return (await server.ask('/files', { method: 'POST', body: form })).id
    },
    async stream(body, signal) {
      const began = performance.now()
      const reply = await fetch(`${url}/v1/completions`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify({ model, stream: true, ...body }),
        ...(signal && { signal }),
      })
      if (!reply.ok) throw new Error(`completions: ${reply.status} ${await reply.text()}`)
      let [first, last, text, ended, done] = [0, 0, '', false, false]
      const gaps: number[] = []
      let rest = ''
      for await (const piece of reply.body!.pipeThrough(new TextDecoderStream())) {
        const frames = (rest + piece).split('\n\n')
        rest = frames.pop()!
        for (const frame of frames) {
          const data = frame.slice('data: '.length)
          if (data === '[DONE]') {
            done = true
            continue
          }
          const [choice] = JSON.parse(data).choices
          if (choice?.finish_reason) ended = true
          if (!choice?.text) continue
          text += choice.text
          const now = performance.now()
          if (first === 0) first = now - began
          else gaps.push(now - last)
          last = now
        }
      }
      return { first, gaps, total: performance.now() - began, text, whole: ended && done }
    },
    async metrics() {
      const page = await (await fetch(`${url}/metrics`)).text()
      const lines = page.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
      return new Map(
        lines.map((line) => {
          const at = line.lastIndexOf(' ')
          return [line.slice(0, at), Number(line.slice(at + 1))]
        }),
      )
    },
    memory() {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
      const of = (field: string) =>
        Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1])
      return [of('VmRSS') / 1024, of('RssAnon') / 1024]
    },
    async [Symbol.asyncDispose]() {
      const ended = new Promise((done) => child.once('exit', done))
      child.kill('SIGTERM')
      await ended
      await rm(home, { recursive: true, force: true })
    },
  }
  return server
}

/** The value below which so much of all lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}

export const median = (values: readonly number[]): number => quantile(values, 0.5)
