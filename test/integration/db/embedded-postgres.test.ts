import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Client } from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { startEmbeddedPostgres } from '../../../src/service/db/embedded-postgres.ts'
import { isRunning } from '../../../src/service/db/postmaster.ts'
import { testLog } from '../../support/log.ts'

const run = promisify(execFile)
let made: string // a cluster that was just made, to be copied: making one takes its time
let home: string
const folders: string[] = []

const newFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-pg-'))
  await chmod(folder, 0o755)
  folders.push(folder)
  return folder
}

beforeAll(async () => {
  made = await newFolder()
  const postgres = await startEmbeddedPostgres({ home: made, log: testLog })
  await postgres.stop()
})
beforeEach(async () => {
  home = await newFolder()
  await run('cp', ['-a', `${made}/.`, home])
})
afterEach(async () => {
  // What a failed test left running.
  const lock = await readFile(join(home, 'postgres/data/postmaster.pid'), 'utf8').catch(() => '')
  const pid = Number.parseInt(lock, 10)
  if (pid > 1 && (await isRunning(pid))) process.kill(pid, 'SIGQUIT')
  for (const child of children.splice(0)) child.kill('SIGKILL')
})
afterAll(() =>
  Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true, maxRetries: 5 }))),
)

const children: ChildProcess[] = []
const start = () => startEmbeddedPostgres({ home, log: testLog })

const query = async (url: string, sql: string) => {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

interface Started {
  url: string
  pid: number
  adopted: boolean
  process: ChildProcess
}

/** Starts it in a process of its own. */
const startElsewhere = async (): Promise<Started> => {
  const script = fileURLToPath(new URL('../../support/run-postgres.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', script, home], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  for await (const line of createInterface({ input: child.stdout! }))
    return { ...JSON.parse(line), process: child }
  throw new Error('The process said nothing.')
}

const kill = async (child: ChildProcess, signal: NodeJS.Signals) => {
  child.kill(signal)
  await once(child, 'exit')
}

test('it is made, listens on its socket only, stops, and starts again with what it held', async () => {
  const first = await start()
  expect(first.adopted).toBe(false)
  await query(first.url, 'create table t as select 1 as n')
  expect(await query(first.url, 'show listen_addresses')).toEqual([{ listen_addresses: '' }])
  await first.stop()
  expect(await isRunning(first.pid)).toBe(false)

  const second = await start()
  expect(await query(second.url, 'select n from t')).toEqual([{ n: 1 }])
  await second.stop()
})

test('a server whose process was killed is adopted with its data, and stopped by its new owner', async () => {
  const orphaned = await startElsewhere()
  await query(orphaned.url, 'create table t as select 7 as n')
  await kill(orphaned.process, 'SIGKILL')
  expect(await isRunning(orphaned.pid)).toBe(true)

  const adopted = await start()
  expect([adopted.adopted, adopted.pid]).toEqual([true, orphaned.pid])
  expect(await query(adopted.url, 'select n from t')).toEqual([{ n: 7 }])
  await adopted.stop()
  expect(await isRunning(adopted.pid)).toBe(false)
})

test('a server that was killed itself recovers every committed row', async () => {
  const first = await start()
  await query(first.url, 'create table t (n int)')
  const writer = new Client({ connectionString: first.url })
  writer.on('error', () => {})
  await writer.connect()
  let committed = 0
  const writing = (async () => {
    for (;;) {
      await writer.query('insert into t values ($1)', [committed])
      committed++
    }
  })().catch(() => {})
  await expect.poll(() => committed, { timeout: 20_000 }).toBeGreaterThan(50)
  process.kill(first.pid, 'SIGKILL')
  await writing

  const second = await start()
  expect(second.adopted).toBe(false)
  const [row] = await query(second.url, 'select count(*)::int as n from t')
  // The last insert may have been committed without its answer having come.
  expect(row.n - committed).toBeGreaterThanOrEqual(0)
  expect(row.n - committed).toBeLessThanOrEqual(1)
  await second.stop()
})

test('both killed at once: the next start recovers', async () => {
  const started = await startElsewhere()
  await query(started.url, 'create table t as select 3 as n')
  process.kill(started.pid, 'SIGKILL')
  await kill(started.process, 'SIGKILL')
  const again = await start()
  expect(await query(again.url, 'select n from t')).toEqual([{ n: 3 }])
  await again.stop()
})

test("a lock whose number is another program's now does not keep it from starting", async () => {
  const first = await start()
  const path = join(home, 'postgres', 'data', 'postmaster.pid')
  const lock = await readFile(path, 'utf8')
  await first.stop()
  const stranger = spawn('sleep', ['60'])
  children.push(stranger)
  await writeFile(path, lock.replace(/^\d+/, String(stranger.pid)))
  const second = await start()
  expect(second.adopted).toBe(false)
  await second.stop()
})

test('a lock of a zombie, which nobody reaps, does not keep it from starting', async () => {
  const first = await start()
  const path = join(home, 'postgres', 'data', 'postmaster.pid')
  const lock = await readFile(path, 'utf8')
  await first.stop()
  // exec: sleep takes the shell's place and waits for no child of it.
  const careless = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'])
  children.push(careless)
  const [line] = await once(createInterface({ input: careless.stdout }), 'line')
  const zombie = Number(line)
  await expect
    .poll(() => readFile(`/proc/${zombie}/stat`, 'utf8'), { timeout: 5000 })
    .toContain(') Z ')
  expect(await isRunning(zombie)).toBe(false)
  await writeFile(path, lock.replace(/^\d+/, String(zombie)))
  const second = await start()
  expect(second.adopted).toBe(false)
  await second.stop()
})

test('processes that start at once share one server, and the last one stops it', async () => {
  // From nothing: making the cluster is part of the race.
  await rm(join(home, 'postgres'), { recursive: true })
  const [a, b, c] = await Promise.all([start(), startElsewhere(), startElsewhere()])
  expect(new Set([a.pid, b.pid, c.pid]).size).toBe(1)
  await a.stop()
  await kill(b.process, 'SIGKILL')
  expect(await query(c.url, 'select 1 as n')).toEqual([{ n: 1 }])
  await kill(c.process, 'SIGTERM')
  expect(await isRunning(a.pid)).toBe(false)
})

test('a deep home keeps its socket in a short folder', async () => {
  const deep = join(home, 'x'.repeat(100))
  await mkdir(deep)
  await rename(join(home, 'postgres'), join(deep, 'postgres'))
  home = deep
  await using postgres = await start()
  const folder = new URL(postgres.url).searchParams.get('host')!
  expect(folder.startsWith(tmpdir())).toBe(true)
  expect((await stat(folder)).mode & 0o077).toBe(0)
  expect(await query(postgres.url, 'select 1 as n')).toEqual([{ n: 1 }])
})

test('a home that only its owner may enter works', async () => {
  await chmod(home, 0o700)
  await using postgres = await start()
  expect(await query(postgres.url, 'select 1 as n')).toEqual([{ n: 1 }])
})

test('data of another major is refused with advice', async () => {
  await writeFile(join(home, 'postgres', 'data', 'PG_VERSION'), '14\n')
  await expect(start()).rejects.toThrow(
    /written by Postgres 14, the embedded one is 18.*`luthier backup FILE`.*`luthier restore FILE`.*DATABASE_URL/,
  )
})
