// Replays the Dockerfile where there is no Docker: its COPY and RUN lines in a clean folder, its HEALTHCHECK and CMD
// on that, all as an unprivileged user, with an outside Postgres, until a completion comes back.
//
//     TEST_DATABASE_URL=postgres://… npx tsx test/support/replay-image.ts

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Client } from 'pg'
import { shared } from './shared.ts'

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url))
const NOBODY = 65_534
const KEY = 'sk-replay-of-the-image'

const began = Date.now()
const say = (text: string) =>
  console.log(`image: ${text} (${((Date.now() - began) / 1000).toFixed(1)} s)`)

interface Stage {
  /** What stands for `/` in it. */
  root: string
  workdir: string
  env: Record<string, string>
  user: string
  health: string[]
  command: string[]
}

/** `NAME rest` per instruction; comments gone, continued lines joined. */
const instructions = (dockerfile: string): [name: string, rest: string][] =>
  dockerfile
    .replace(/^#.*\n/gm, '')
    .replace(/\\\n\s*/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, name, rest] = /^(\w+)\s+(.*)$/.exec(line) ?? []
      if (!name || rest === undefined) throw new Error(`This is no instruction: ${line}`)
      return [name, rest]
    })

const replay = (folder: string): Stage => {
  const stages = new Map<string, Stage>()
  const allowed = new Set(
    readFileSync(join(REPOSITORY, '.dockerignore'), 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1)),
  )
  let stage: Stage | undefined
  const here = (): Stage => {
    if (!stage) throw new Error('An instruction stands before FROM.')
    return stage
  }
  for (const [name, rest] of instructions(readFileSync(join(REPOSITORY, 'Dockerfile'), 'utf8')))
    switch (name) {
      case 'FROM': {
        const as = /\sAS\s+(\S+)$/i.exec(rest)?.[1] ?? 'image'
        const root = join(folder, as)
        stage = { root, workdir: root, env: {}, user: 'root', health: [], command: [] }
        stages.set(as, stage)
        mkdirSync(join(root, 'home/node'), { recursive: true })
        break
      }
      case 'ENV':
        for (const [, key, value] of rest.matchAll(/(\w+)=(\S+)/g))
          here().env[key!] = within(here(), value!)
        break
      case 'WORKDIR':
        here().workdir = join(here().root, rest)
        mkdirSync(here().workdir, { recursive: true })
        break
      case 'COPY': {
        const from = /^--from=(\S+)\s+/.exec(rest)
        const words = rest.slice(from?.[0].length ?? 0).split(/\s+/)
        const target = join(here().workdir, words.pop()!)
        for (const source of words) {
          if (!from && !allowed.has(source))
            throw new Error(`.dockerignore keeps ${source} out, which the Dockerfile copies.`)
          const path = from ? join(stages.get(from[1]!)!.root, source) : join(REPOSITORY, source)
          // A file goes into a folder, a folder becomes the target.
          const isFile = existsSync(path) && !isFolder(path)
          cpSync(path, isFile ? join(target, basename(path)) : target, {
            recursive: true,
            verbatimSymlinks: true,
          })
        }
        own(here().root)
        break
      }
      case 'RUN':
        own(here().root)
        execFileSync('sh', ['-c', within(here(), rest)], {
          ...asNobody(),
          cwd: here().workdir,
          env: environment(here()),
          stdio: ['ignore', 'inherit', 'inherit'],
        })
        say(`RUN ${rest.slice(0, 60)}`)
        break
      case 'USER':
        here().user = rest
        break
      case 'HEALTHCHECK':
        here().health = JSON.parse(rest.slice(rest.indexOf('['))) as string[]
        break
      case 'CMD':
        here().command = JSON.parse(rest) as string[]
        break
      case 'VOLUME':
      case 'EXPOSE':
      case 'STOPSIGNAL':
        break
      default:
        throw new Error(`The replay does not know ${name}.`)
    }
  return here()
}

const isFolder = (path: string): boolean => {
  try {
    readdirSync(path)
    return true
  } catch {
    return false
  }
}

/** Absolute paths of the image, as they are in the replay. */
const within = ({ root }: Stage, text: string): string =>
  text.replace(/(?<![\w.}])\/(app|home)\b/g, `${root}/$1`)

const isRoot = process.getuid?.() === 0
const asNobody = () => (isRoot ? { uid: NOBODY, gid: NOBODY } : {})
const own = (path: string): void => {
  if (isRoot) execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, path])
}

/** Only what a container would have; npm finds the registry of this machine. */
const environment = (stage: Stage): Record<string, string> => {
  const registry = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim()
  const passed = ['PATH', 'NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE', 'HTTPS_PROXY', 'NO_PROXY']
  return {
    ...Object.fromEntries(
      passed.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
    ),
    HOME: join(stage.root, 'home/node'),
    TMPDIR: tmpdir(),
    npm_config_registry: registry,
    ...stage.env,
  }
}

/** The outside Postgres by TCP, as a container reaches it; the socket's folder may be closed to others. */
const relay = async (url: URL): Promise<Server> => {
  const folder = url.searchParams.get('host')
  const server = createServer((inside) => {
    const outside = folder
      ? connect(join(folder, '.s.PGSQL.5432'))
      : connect(Number(url.port || 5432), url.hostname)
    inside.pipe(outside).pipe(inside)
    inside.on('error', () => outside.destroy())
    outside.on('error', () => inside.destroy())
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return server
}

const freePort = async (): Promise<number> => {
  const probe = createServer()
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done))
  const { port } = probe.address() as AddressInfo
  await new Promise((done) => probe.close(done))
  return port
}

const check = (isTrue: boolean, text: string): void => {
  if (!isTrue) throw new Error(`The image is not as it should be: ${text}`)
}

const checkContents = (image: Stage): void => {
  check(image.user === 'node', 'its user is not node')
  check(image.health.length > 0, 'it has no health check')
  const modules = join(image.workdir, 'node_modules')
  for (const name of ['vitest', 'typescript', '@biomejs', 'openai'])
    check(!existsSync(join(modules, name)), `it holds ${name}, which is for development`)
  const binaries = join(modules, 'onnxruntime-node/bin/napi-v6')
  check(readdirSync(binaries).join() === 'linux', 'it holds other platforms’ binaries')
  check(
    readdirSync(join(binaries, 'linux')).join() === process.arch,
    'it holds other processors’ binaries',
  )
  const size = execFileSync('du', ['-sm', image.root], { encoding: 'utf8' }).split('\t')[0]
  say(`its own layers take ${size} MB`)
}

const main = async (): Promise<void> => {
  const outside = process.env.TEST_DATABASE_URL
  if (!outside) throw new Error('Set TEST_DATABASE_URL to a Postgres 15 or later.')
  const stories = shared('models/stories260k')
  if (stories.missing) return

  const folder = mkdtempSync(join(tmpdir(), 'luthier-image-'))
  chmodSync(folder, 0o755)
  const owner = new Client({ connectionString: outside })
  const database = `image_${basename(folder).slice(-6).toLowerCase()}`
  let server: ChildProcess | undefined
  let tunnel: Server | undefined
  try {
    await owner.connect()
    await owner.query(`create database "${database}"`)
    const image = replay(folder)
    checkContents(image)

    tunnel = await relay(new URL(outside))
    const user = new URL(outside).username || 'postgres'
    const { password } = new URL(outside)
    const { port } = tunnel.address() as AddressInfo
    const home = within(image, '/home/node/luthier')
    cpSync(stories.path, join(home, 'models/stories260k'), { recursive: true })
    own(home)
    const env = {
      ...environment(image),
      PORT: String(await freePort()),
      DATABASE_URL: `postgres://${user}${password && `:${password}`}@127.0.0.1:${port}/${database}`,
      LUTHIER_API_KEY: KEY,
    }
    const [program, ...args] = image.command
    server = spawn(program!, args, {
      ...asNobody(),
      cwd: image.workdir,
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let log = ''
    server.stdout?.on('data', (chunk: Buffer) => {
      log += chunk
    })
    const exited = new Promise<number | null>((done) => server!.once('exit', done))

    const isHealthy = () => {
      try {
        const [health, ...rest] = image.health
        execFileSync(health!, rest, { ...asNobody(), env, stdio: 'ignore', timeout: 10_000 })
        return true
      } catch {
        return false
      }
    }
    for (const end = Date.now() + 90_000; !isHealthy(); await sleep(500))
      if (Date.now() > end || server.exitCode !== null)
        throw new Error(`The server does not become healthy:\n${log}`)
    say('its health check says that it lives')

    const answer = await fetch(`http://127.0.0.1:${env.PORT}/v1/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'stories260k', prompt: 'Once upon a time', max_tokens: 12 }),
    })
    const { choices } = (await answer.json()) as { choices?: { text: string }[] }
    const text = choices?.[0]?.text ?? ''
    if (answer.status !== 200 || text === '') throw new Error(`No completion came back:\n${log}`)
    say(`it answers: ${JSON.stringify(text)}`)

    server.kill('SIGTERM')
    check((await exited) === 0, `it did not stop cleanly:\n${log}`)
    say('it stops on SIGTERM with exit code 0')
  } finally {
    server?.kill('SIGKILL')
    tunnel?.close()
    await owner.query(`drop database if exists "${database}" with (force)`).catch(() => {})
    await owner.end()
    rmSync(folder, { recursive: true, force: true })
  }
}

await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
})
