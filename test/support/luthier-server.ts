// A real server in a process of its own, as `npm start` runs it, in a temporary home: on embedded parts, or on the
// database server and the object store that TEST_DATABASE_URL and TEST_OBJECTS name.

import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { objectSettings } from './objects.ts'
import { freshDatabase } from './postgres.ts'

export interface LuthierServer extends AsyncDisposable {
  /** Ends in /v1. */
  readonly baseURL: string
  readonly apiKey: string
  readonly home: string
  /** Where its database and its objects are: the environment of a command on the same data. */
  readonly settings: Readonly<Record<string, string>>
  /** The names of all objects, half received ones too. */
  stored(): Promise<string[]>
  /** Flips the last byte of the one object that has this SHA-256; twice is as before. */
  corrupt(sha256: string): Promise<void>
  /** Of the process that runs now. */
  readonly pid: number | undefined
  /** kill -9; the home stays as it is. */
  kill(): Promise<void>
  /** SIGTERM, and waits for the end. */
  stop(): Promise<number | null>
  /** Sends a signal and does not wait. */
  signal(name: 'SIGTERM' | 'SIGINT'): void
  /** The exit code, once it has ended. */
  exited(): Promise<number | null>
  /** The lines of the log since the last start, the newest 20,000 characters of them. */
  log(): Record<string, unknown>[]
  /** Starts again on the same home and port, with these settings besides, and waits until it is ready. */
  start(besides?: Record<string, string>): Promise<void>
}

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** Chat rows need a template; this one ends an answer with the model's end token. */
const TEMPLATE =
  "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"

/** A new home whose base models are the given folders; each gets a chat template. */
export function makeHome(models: Record<string, string>): string {
  // A short path: the database's socket lies under it.
  const home = mkdtempSync(join(tmpdir(), 'luthier-e2e-'))
  for (const [name, path] of Object.entries(models)) {
    const folder = join(home, 'models', name)
    mkdirSync(folder, { recursive: true })
    cpSync(path, folder, { recursive: true })
    writeFileSync(join(folder, 'chat_template.jinja'), TEMPLATE)
  }
  return home
}

/** Starts a server on a home that `makeHome` made; `settings` are further environment variables. */
export async function startLuthier(
  home: string,
  settings: Record<string, string> = {},
): Promise<LuthierServer> {
  const port = await freePort()
  const apiKey = 'sk-end-to-end-tests-only'
  const objects = await objectSettings(home)
  const outside = process.env.TEST_DATABASE_URL !== undefined && !('DATABASE_URL' in settings)
  const database = outside ? await freshDatabase() : undefined
  const places = {
    LUTHIER_HOME: home,
    ...objects.env,
    ...(database && { DATABASE_URL: database.url }),
    ...settings,
  }
  let child: ChildProcess | undefined
  let output = ''

  const exited = () =>
    new Promise<number | null>((done) => {
      if (!child || child.exitCode !== null || child.signalCode !== null)
        return done(child?.exitCode ?? null)
      child.once('exit', (code) => done(code))
    })

  const server: LuthierServer = {
    baseURL: `http://127.0.0.1:${port}/v1`,
    apiKey,
    home,
    settings: places,
    stored: objects.stored,
    corrupt: objects.corrupt,
    get pid() {
      return child?.pid
    },
    async start(besides = {}) {
      output = ''
      const started = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
        cwd: ROOT,
        env: {
          ...process.env,
          HOST: '127.0.0.1',
          PORT: String(port),
          LUTHIER_API_KEY: apiKey,
          LUTHIER_PRECISION: 'fp32',
          ...places,
          ...besides,
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      child = started
      for (const stream of [started.stdout, started.stderr])
        stream.on('data', (chunk: Buffer) => {
          output = (output + chunk.toString()).slice(-20_000)
        })
      const deadline = Date.now() + 90_000
      while (true) {
        const ready = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined)
        if (ready?.status === 200) return
        if (started.exitCode !== null || started.signalCode !== null)
          throw new Error(
            `The server ended with ${started.signalCode ?? `code ${started.exitCode}`}:\n${output}`,
          )
        if (Date.now() > deadline) throw new Error(`The server is not ready:\n${output}`)
        await sleep(100)
      }
    },
    signal: (name) => void child?.kill(name),
    exited,
    log: () =>
      output.split('\n').flatMap((line) => (/^\{.*\}$/.test(line) ? [JSON.parse(line)] : [])),
    async kill() {
      const gone = exited()
      child?.kill('SIGKILL')
      await gone
    },
    async stop() {
      const gone = exited()
      child?.kill('SIGTERM')
      return gone
    },
    async [Symbol.asyncDispose]() {
      await server.stop()
      await objects.remove()
      await database?.[Symbol.asyncDispose]()
      rmSync(home, { recursive: true, force: true })
    },
  }
  await server.start()
  return server
}

function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer()
    probe.once('error', fail)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => done(typeof address === 'object' && address ? address.port : 0))
    })
  })
}
