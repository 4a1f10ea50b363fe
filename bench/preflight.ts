// tsx bench/preflight.ts MODEL CSV [ROWS] [WORDS]: the files of a job judged by a server in a process of its own, on
// rows of banking77's length, or of so many words. How long it takes, what memory grows by, how late the event loop is
// meanwhile, and whether the job keeps its lease and tells how far it has come.

import { spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { uniform } from '../src/engine/random.ts'

const [path, csv, count = '100000', words = '0'] = process.argv.slice(2)
if (!path || !csv) throw new Error('tsx bench/preflight.ts MODEL CSV [ROWS] [WORDS]')
const model = basename(path, '.gguf')
const apiKey = 'sk-preflight-bench'

const home = await mkdtemp(join(tmpdir(), 'luthier-preflight-'))
await mkdir(join(home, 'models'))
await cp(path, join(home, 'models', basename(path)), { recursive: true })
const server = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  env: { ...process.env, LUTHIER_HOME: home, LUTHIER_API_KEY: apiKey, PORT: '0' },
  stdio: ['ignore', 'pipe', 'inherit'],
})
try {
  await measure()
} finally {
  const ended = new Promise((done) => server.once('exit', done))
  server.kill('SIGTERM')
  await ended
  await rm(home, { recursive: true, force: true })
}

async function measure() {
  let claims = 0
  let found = (_: string) => {}
  const url = new Promise<string>((done) => {
    found = done
  })
  createInterface({ input: server.stdout }).on('line', (line) => {
    const { msg, url } = JSON.parse(line) as { msg: string; url?: string }
    if (msg === 'ready' && url) found(url)
    if (msg === 'work claimed') claims++
  })
  const headers = { authorization: `Bearer ${apiKey}` }
  const ask = async (path: string, init: RequestInit = {}) => {
    const reply = await fetch(`${await url}/v1${path}`, {
      ...init,
      headers: { ...headers, ...init.headers },
    })
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`)
    // biome-ignore lint/suspicious/noExplicitAny: a bench looks into what it asked for
    return (await reply.json()) as any
  }
  const upload = async (rows: string) => {
    const form = new FormData()
    form.set('purpose', 'fine-tune')
    form.set('file', new Blob([rows]), 'rows.jsonl')
    return ask('/files', { method: 'POST', body: form })
  }
  const rows = await makeRows()
  const { id: training_file, bytes } = await upload(rows)
  // A base's speed is measured once, when it is first met: that is not what rows cost.
  const met = performance.now()
  const few = await upload(`${rows.split('\n').slice(0, 100).join('\n')}\n`)
  const before = await resident()
  await ask('/fine_tuning/alpha/preflight', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, training_file: few.id }),
  })
  console.log(
    `a base that is first met: ${((performance.now() - met) / 1000).toFixed(1)} s for 100 rows; memory afterwards ${(await resident()) - before} MB more`,
  )
  await sleep(2000)
  const begin = await resident()
  console.log(`${count} rows, ${Math.round(bytes / 1e6)} MB; resident before: ${begin} MB`)

  let most = 0
  const delays: number[] = []
  const watching = setInterval(async () => {
    most = Math.max(most, await resident().catch(() => 0))
  }, 200)
  // The time that a request takes which does nothing is the event loop's delay, and a little more.
  let done = false
  const probing = (async () => {
    while (!done) {
      const began = performance.now()
      await fetch(`${await url}/healthz`)
      delays.push(performance.now() - began)
      await sleep(20)
    }
  })()
  const began = performance.now()
  const job = await ask('/fine_tuning/jobs', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, training_file, luthier: { data: { validation_split: 0.1 } } }),
  })
  let status = 'validating_files'
  while (status === 'validating_files') {
    await sleep(200)
    status = (await ask(`/fine_tuning/jobs/${job.id}`)).status
  }
  const seconds = (performance.now() - began) / 1000
  done = true
  await probing
  clearInterval(watching)
  delays.sort((a, b) => a - b)
  const { data } = await ask(`/fine_tuning/jobs/${job.id}/events?limit=1000`)
  const progress = data.filter(
    (event: { data: { kind?: string } }) => event.data.kind === 'preflight_progress',
  )
  console.log(
    `${status} after ${seconds.toFixed(1)} s; memory grew by ${most - begin} MB at most; ${progress.length} progress events; claims ${claims}; a request that does nothing took ${at(delays, 0.5)} ms, p99 ${at(delays, 0.99)} ms, at most ${at(delays, 1)} ms (${delays.length} requests)`,
  )
  const { text } = await ask(`/fine_tuning/jobs/${job.id}/preflight`)
  console.log(text)
  await ask(`/fine_tuning/jobs/${job.id}/cancel`, { method: 'POST' }).catch(() => {})
}

function at(sorted: readonly number[], q: number): string {
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!.toFixed(1)
}

/** Rows of the CSV over and over, in each a third of the words replaced by others of the file; or rows of `words` words. */
async function makeRows(): Promise<string> {
  const source = (await readFile(csv!, 'utf8'))
    .split(/\r?\n/)
    .filter((line) => /^.{5,},\w{3,}$/.test(line))
  const texts = source.map((line) => line.slice(0, line.lastIndexOf(',')).replaceAll('"', ''))
  const vocabulary = texts.flatMap((text) => text.split(' '))
  const draw = (row: number, k: number) =>
    vocabulary[Math.floor(uniform(row, 1, k) * vocabulary.length)]!
  const lines: string[] = []
  for (let row = 0; row < Number(count); row++) {
    const own = texts[row % texts.length]!.split(' ')
    const text =
      Number(words) > 0
        ? Array.from({ length: Number(words) }, (_, k) => draw(row, k))
        : own.map((word, k) => (uniform(row, 2, k) < 0.33 ? draw(row, k) : word))
    const label = source[row % source.length]!.split(',').at(-1)!
    lines.push(
      JSON.stringify({
        messages: [
          { role: 'system', content: 'Name the intent.' },
          { role: 'user', content: text.join(' ') },
          { role: 'assistant', content: label },
        ],
      }),
    )
  }
  return `${lines.join('\n')}\n`
}

async function resident(): Promise<number> {
  const status = await readFile(`/proc/${server.pid}/status`, 'utf8')
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024)
}
