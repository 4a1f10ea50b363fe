// A real Postgres under LUTHIER_HOME, from the binaries that npm ships: made, started, adopted, stopped.
// Reached by unix socket only. Several processes of one LUTHIER_HOME share it; the last one stops it.

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, realpath, rename, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'
import type { Logger } from '../../log.ts'
import {
  type Binaries,
  chooseRunner,
  findBinaries,
  linkLibraries,
  type Runner,
} from './postgres-binaries.ts'
import {
  chooseSocketFolder,
  findPostmaster,
  isRunning,
  joinUsers,
  type Users,
} from './postmaster.ts'

export interface EmbeddedPostgres extends AsyncDisposable {
  /** For pg and for migrations: `postgresql://postgres@localhost/luthier?host=<socket folder>`. */
  readonly url: string
  readonly pid: number
  /** Whether it was found running, left by a process that died. */
  readonly adopted: boolean
  /** The same server, another database. */
  urlOf(database: string): string
  /** Fast shutdown, unless another process of this LUTHIER_HOME still uses the server. */
  stop(): Promise<void>
}

export interface EmbeddedPostgresOptions {
  /** `LUTHIER_HOME`; all is kept in its folder `postgres`. */
  readonly home: string
  readonly log: Logger
  /** Postgres settings; tests turn `fsync` off. */
  readonly settings?: Readonly<Record<string, string>>
}

interface Cluster {
  readonly state: string
  readonly data: string
  readonly binaries: Binaries
  readonly runner: Runner
  readonly log: Logger
  readonly settings: Readonly<Record<string, string>>
}

const USER = 'postgres'
const DATABASE = 'luthier'
const START_LIMIT_MS = 60_000
/** Recovery after a crash of a busy server may take its time, as long as it lives. */
const RECOVERY_LIMIT_MS = 600_000

/** Starts the embedded Postgres, or takes over the one that a dead process left running. */
export const startEmbeddedPostgres = async (
  options: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> => {
  await mkdir(join(options.home, 'postgres'), { recursive: true })
  const state = await realpath(join(options.home, 'postgres'))
  const binaries = await findBinaries()
  const cluster: Cluster = {
    state,
    data: join(state, 'data'),
    binaries: { ...binaries, env: await linkLibraries(binaries.native, join(state, 'lib')) },
    runner: await chooseRunner(state, binaries.native),
    log: options.log,
    settings: options.settings ?? {},
  }
  const users = await joinUsers(state)
  try {
    return await settle(cluster, users)
  } catch (error) {
    await users.leave()
    throw error
  }
}

/** Adopt, or make and start; whoever loses a race finds the winner's server in the next round. */
const settle = async (cluster: Cluster, users: Users): Promise<EmbeddedPostgres> => {
  let failure = ''
  for (let round = 0; round < 5; round++) {
    const found = await findPostmaster(cluster.data, cluster.log)
    if (!found) await createCluster(cluster)
    const socketFolder =
      found?.socketFolder ?? (await chooseSocketFolder(cluster.state, cluster.runner))
    const child = found ? undefined : await startPostmaster(cluster, socketFolder)
    const pid = found?.pid ?? child?.pid
    if (pid === undefined) throw new Error('The embedded Postgres could not be started.')
    const outcome = await waitUntilReady(pid, socketFolder, child)
    // The one that answers may be another's, who was quicker, while ours is just giving up.
    const isIt =
      outcome === 'ready' && (await findPostmaster(cluster.data, cluster.log))?.pid === pid
    if (isIt) {
      await ensureDatabase(urlAt(socketFolder, 'postgres'))
      cluster.log.info({ pid, adopted: !child }, 'embedded Postgres ready')
      return handle(cluster, users, { pid, socketFolder, adopted: !child, child })
    }
    failure = outcome
    if (outcome !== 'ready') await sleep(200 * (round + 1))
  }
  throw new Error(
    `The embedded Postgres does not start (${failure}); its log is ${join(cluster.state, 'postgres.log')}, which ends:\n` +
      (await logTail(cluster)),
  )
}

const urlAt = (socketFolder: string, database: string) =>
  `postgresql://${USER}@localhost/${database}?host=${encodeURIComponent(socketFolder)}`

const handle = (
  cluster: Cluster,
  users: Users,
  server: { pid: number; socketFolder: string; adopted: boolean; child: ChildProcess | undefined },
): EmbeddedPostgres => {
  let stopping: Promise<void> | undefined
  const stop = async () => {
    const others = await users.leave()
    if (others > 0) {
      cluster.log.info({ pid: server.pid, others }, 'embedded Postgres left to its other users')
      server.child?.unref()
      return
    }
    await stopPostmaster(server.pid)
    await rmdir(server.socketFolder).catch(() => {})
    cluster.log.info({ pid: server.pid }, 'embedded Postgres stopped')
  }
  return {
    url: urlAt(server.socketFolder, DATABASE),
    pid: server.pid,
    adopted: server.adopted,
    urlOf: (database) => urlAt(server.socketFolder, database),
    stop: () => (stopping ??= stop()),
    [Symbol.asyncDispose]: () => (stopping ??= stop()),
  }
}

/** initdb into a folder of its own, then one rename: a half-made cluster is never found. */
const createCluster = async (cluster: Cluster): Promise<void> => {
  const version = await readFile(join(cluster.data, 'PG_VERSION'), 'utf8').catch(() => undefined)
  if (version !== undefined) return checkMajor(cluster, version.trim())

  const making = join(cluster.state, `data.${process.pid}`)
  await rm(making, { recursive: true, force: true })
  await mkdir(making, { mode: 0o700 })
  await cluster.runner.own(making)
  const { code, output } = await runToEnd(cluster, 'initdb', [
    ...['--pgdata', making, '--username', USER, '--auth', 'trust', '--encoding', 'UTF8'],
    // The C locale is the same on every machine; an ICU or glibc update cannot break an index.
    ...['--locale', 'C', '--no-instructions', '--data-checksums'],
  ])
  if (code !== 0) {
    await rm(making, { recursive: true, force: true })
    throw new Error(`initdb failed with exit code ${code}:\n${output}`)
  }
  await rename(making, cluster.data).catch(async (cause: NodeJS.ErrnoException) => {
    await rm(making, { recursive: true, force: true })
    if (cause.code !== 'ENOTEMPTY' && cause.code !== 'EEXIST') throw cause
  })
}

const checkMajor = async (cluster: Cluster, major: string): Promise<void> => {
  const { output } = await runToEnd(cluster, 'postgres', ['--version'])
  const ours = /(\d+)\.\d+/.exec(output)?.[1]
  if (ours === undefined)
    throw new Error(`The embedded Postgres does not tell its version: ${output}`)
  if (ours !== major) {
    throw new Error(
      `${cluster.data} was written by Postgres ${major}, the embedded one is ${ours}. ` +
        'With the Luthier that wrote it run `luthier backup FILE`, then with this one and an empty LUTHIER_HOME ' +
        `\`luthier restore FILE\`. Or run a Postgres ${major} on that folder and set DATABASE_URL.`,
    )
  }
  await cluster.runner.own(cluster.data)
}

/** Keeps the log of the server from growing for ever: one old file, ten megabytes each. */
const rotateLog = async (cluster: Cluster): Promise<void> => {
  const path = join(cluster.state, 'postgres.log')
  const { size } = await stat(path).catch(() => ({ size: 0 }))
  if (size > 10_000_000) await rename(path, `${path}.1`)
}

const startPostmaster = async (cluster: Cluster, socketFolder: string): Promise<ChildProcess> => {
  await rotateLog(cluster)
  const settings = {
    listen_addresses: '',
    unix_socket_directories: socketFolder,
    unix_socket_permissions: '0700',
    max_connections: '100',
    ...cluster.settings,
  }
  const args = ['-D', cluster.data]
  for (const [name, value] of Object.entries(settings)) args.push('-c', `${name}=${value}`)
  const output = openSync(join(cluster.state, 'postgres.log'), 'a', 0o600)
  try {
    const { file, args: all, ids } = cluster.runner.command(cluster.binaries.path('postgres'), args)
    // Its own session: Ctrl-C in our terminal must not stop the database before the jobs are saved.
    const child = spawn(file, all, {
      ...ids,
      cwd: cluster.data,
      detached: true,
      env: cluster.binaries.env,
      stdio: ['ignore', output, output],
    })
    child.on('error', (err) => cluster.log.error({ err }, 'embedded Postgres cannot be run'))
    child.unref()
    return child
  } finally {
    closeSync(output)
  }
}

/** Waits by connecting: log texts change, and a server in recovery refuses with 57P03. */
const waitUntilReady = async (
  pid: number,
  socketFolder: string,
  child: ChildProcess | undefined,
): Promise<'ready' | string> => {
  const started = Date.now()
  let last = ''
  let recovering = false
  while (Date.now() - started < (recovering ? RECOVERY_LIMIT_MS : START_LIMIT_MS)) {
    const client = new Client({ connectionString: urlAt(socketFolder, 'postgres') })
    client.on('error', () => {})
    try {
      await client.connect()
      return 'ready'
    } catch (error) {
      const { code, message } = error as { code?: string; message: string }
      recovering = code === '57P03'
      last = message
    } finally {
      await client.end().catch(() => {})
    }
    if (child ? child.exitCode !== null || child.signalCode !== null : !(await isRunning(pid)))
      return `it ended: ${last}`
    await sleep(20)
  }
  return `no answer in time: ${last}`
}

const ensureDatabase = async (url: string): Promise<void> => {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [
      DATABASE,
    ])
    if (rowCount === 0) await client.query(`create database ${DATABASE}`)
  } catch (error) {
    // Another process was quicker: duplicate_database, or its unique index.
    const { code } = error as { code?: string }
    if (code !== '42P04' && code !== '23505') throw error
  } finally {
    await client.end()
  }
}

/** SIGINT is Postgres's fast shutdown: sessions end, a checkpoint is written, all is on disk. */
const stopPostmaster = async (pid: number): Promise<void> => {
  const signal = (name: 'SIGINT' | 'SIGQUIT') => {
    try {
      process.kill(pid, name)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
  signal('SIGINT')
  for (let waited = 0; waited < START_LIMIT_MS; waited += 20) {
    if (!(await isRunning(pid))) return
    await sleep(20)
  }
  // Immediate shutdown loses nothing: the next start replays the log.
  signal('SIGQUIT')
  while (await isRunning(pid)) await sleep(50)
}

const runToEnd = async (cluster: Cluster, program: 'initdb' | 'postgres', args: string[]) => {
  const { file, args: all, ids } = cluster.runner.command(cluster.binaries.path(program), args)
  const child = spawn(file, all, {
    ...ids,
    cwd: cluster.state,
    env: cluster.binaries.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return { code, output }
}

const logTail = async (cluster: Cluster): Promise<string> => {
  const text = await readFile(join(cluster.state, 'postgres.log'), 'utf8').catch(() => '')
  return text.slice(-2000)
}
