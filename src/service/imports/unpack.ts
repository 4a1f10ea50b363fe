// What was uploaded as a model, laid out as plain files of one folder. Takes only names that a model may have, so no
// name from outside ever reaches the disk; knows no tensor.

import { createWriteStream } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS } from '../../engine/import/request.ts'
import { FOLDER_TEXTS } from '../../engine/weights/folder-files.ts'
import { invalidRequest, isDiskFull, noRoom } from '../../errors.ts'
import { untar } from './untar.ts'

/** One uploaded file. */
export interface Arrived {
  readonly filename: string
  readonly bytes: number
  open(): Promise<AsyncIterable<Uint8Array>>
}

export interface Unpacked {
  /** A folder that holds a model's files and nothing else. */
  readonly folder: string
  /** What the model was called. */
  readonly name: string
  /** What lay beside the model and was left out. */
  readonly ignored: readonly string[]
}

const TEXTS: readonly string[] = [
  'config.json',
  'model.safetensors.index.json',
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  ...FOLDER_TEXTS,
]

/** A file that a model is made of. */
const isWanted = (name: string): boolean =>
  TEXTS.includes(name) || /^[\w][\w.-]{0,120}\.(safetensors|gguf)$/.test(name)

/** Whether a folder with such a file is a model. */
const isMark = (name: string) =>
  name === 'config.json' || name === ADAPTER_CONFIG || name.endsWith('.gguf')

/** Lays the files into `into`, which must not be there yet. */
export async function unpack(files: readonly Arrived[], into: string): Promise<Unpacked> {
  await mkdir(join(into, 'unsorted'), { recursive: true })
  try {
    const laid = await lay(files, join(into, 'unsorted'))
    return await choose(laid, into, nameOf(files))
  } catch (error) {
    throw isDiskFull(error)
      ? noRoom('The model cannot be unpacked: there is no more room for its files on the disk')
      : error
  }
}

/** Where a file came from, and where it lies now; nowhere, if no model has such a file. */
interface Laid {
  readonly path: string
  readonly at: string | undefined
}

async function lay(files: readonly Arrived[], folder: string): Promise<Laid[]> {
  const laid: Laid[] = []
  const take = async (path: string, body: AsyncIterable<Uint8Array>) => {
    const at = isWanted(basename(path)) ? join(folder, String(laid.length)) : undefined
    laid.push({ path, at })
    if (at) await pipeline(Readable.from(body, { objectMode: false }), createWriteStream(at))
  }
  for (const { filename, bytes, open } of files) {
    if (/\.(zip|tgz|gz|bz2|xz|zst|7z)$/i.test(filename))
      throw refuse(`${JSON.stringify(filename)} is compressed: send a plain .tar, or the files`)
    if (!/\.tar$/i.test(filename)) await take(basename(filename), await open())
    else for await (const one of untar(await open(), bytes)) await take(one.path, one.body)
  }
  return laid
}

/** Of all folders the one that is a model; what lies elsewhere is left out. */
async function choose(laid: readonly Laid[], into: string, name: string): Promise<Unpacked> {
  const marks = laid.filter(({ path }) => isMark(basename(path)))
  const depth = Math.min(...marks.map(({ path }) => path.split('/').length))
  const roots = new Set(
    marks.filter(({ path }) => path.split('/').length === depth).map(({ path }) => dirname(path)),
  )
  const [root] = roots
  if (root === undefined)
    throw refuse(
      `there is neither ${ADAPTER_CONFIG}, nor config.json, nor a .gguf file among ${laid.length} files`,
    )
  if (roots.size > 1) throw refuse(`there are several models: ${[...roots].join(', ')}`)
  const folder = join(into, 'model')
  await mkdir(folder)
  const ignored: string[] = []
  const placed = new Set<string>()
  for (const { path, at } of laid)
    if (at === undefined || dirname(path) !== root) ignored.push(path)
    else {
      if (placed.has(basename(path))) throw refuse(`${basename(path)} is there twice`)
      placed.add(basename(path))
      await rename(at, join(folder, basename(path)))
    }
  if ([...placed].filter((one) => one.endsWith('.gguf')).length > 1)
    throw refuse('there are several .gguf files')
  return { folder, name: root === '.' ? name : basename(root), ignored: ignored.slice(0, 100) }
}

function nameOf(files: readonly Arrived[]): string {
  const [only] = files
  if (files.length !== 1 || !only) return 'imported'
  return basename(only.filename).replace(/\.tar$/i, '')
}

const refuse = (why: string) =>
  invalidRequest(`The files are no model: ${why}.`, { param: 'files', code: 'invalid_model' })
