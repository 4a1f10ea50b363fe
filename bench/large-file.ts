// tsx bench/large-file.ts MODEL [MB]: a large training file through a server in a process of its own. What its
// memory grows by while the file comes in and while it is checked, and whether the job keeps its lease.

import { spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const [path, megabytes = '512'] = process.argv.slice(2)
if (!path) throw new Error('Which model? tsx bench/large-file.ts MODEL [MB]')
const model = basename(path, '.gguf')
const limit = Number(megabytes) * 1024 * 1024
const apiKey = 'sk-large-file-bench'

const home = await mkdtemp(join(tmpdir(), 'luthier-large-'))
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
  const ask = async (path: string, init: RequestInit & { duplex?: 'half' } = {}) => {
    const headers = { authorization: `Bearer ${apiKey}`, ...init.headers }
    const reply = await fetch(`${await url}/v1${path}`, { ...init, headers })
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`)
    return (await reply.json()) as { id: string; status: string; bytes: number }
  }
  await ask('/files')
  const begin = await resident()
  console.log(`resident at the start: ${begin} MB`)

  const uploading = watch(begin)
  const file = await ask('/files', {
    method: 'POST',
    headers: { 'content-type': 'multipart/form-data; boundary=cut' },
    body: form(),
    duplex: 'half',
  })
  console.log(`upload of ${file.bytes} bytes: ${uploading()}`)

  const checking = watch(begin)
  const job = await ask('/fine_tuning/jobs', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, training_file: file.id }),
  })
  let { status } = job
  while (status === 'validating_files') {
    await sleep(500)
    status = (await ask(`/fine_tuning/jobs/${job.id}`)).status
  }
  console.log(`check until ${status}: ${checking()}; claims of the job: ${claims}`)
  if (['queued', 'running'].includes(status))
    await ask(`/fine_tuning/jobs/${job.id}/cancel`, { method: 'POST' })
}

/** Rows of about a kilobyte, each another. */
async function* form() {
  const encode = (text: string) => new TextEncoder().encode(text)
  yield encode(
    '--cut\r\ncontent-disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n',
  )
  const words = 'the little cat saw a big red ball and was very happy to play with it '.split(' ')
  let sent = 0
  for (let row = 0; sent < limit; ) {
    let text = ''
    while (text.length < 256 * 1024) {
      const story = Array.from(
        { length: 200 },
        (_, i) => words[(row * 7 + i * (1 + (row % 5))) % 16],
      )
      text += `${JSON.stringify({ prompt: `${row}: ${story.join(' ')}`, completion: ' it ended.' })}\n`
      row++
    }
    // The last piece ends with a whole row.
    const rest = limit - sent
    if (text.length > rest) text = text.slice(0, text.lastIndexOf('\n', rest - 1) + 1) || '\n'
    if (text === '\n') break
    sent += text.length
    yield encode(text)
  }
  yield encode(
    '\r\n--cut\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--cut--\r\n',
  )
}

/** Says the time and the most memory since it was begun, against `begin`. */
function watch(begin: number): () => string {
  const began = Date.now()
  let most = 0
  const timer = setInterval(async () => {
    // The server may be gone already, when something else failed.
    most = Math.max(most, await resident().catch(() => 0))
  }, 100)
  timer.unref()
  return () => {
    clearInterval(timer)
    return `${Math.round((Date.now() - began) / 1000)} s, at most ${most} MB, growth ${most - begin} MB`
  }
}

async function resident(): Promise<number> {
  const status = await readFile(`/proc/${server.pid}/status`, 'utf8')
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024)
}
