// A whole merge into a folder: planned, then tensor by tensor over several threads. What is done is noted in the
// folder, so that a merge that was interrupted goes on and gives the same bytes.

import { existsSync } from 'node:fs'
import { copyFile, mkdir, open, readFile, rm, statfs, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDiskFull, noRoom } from '../../errors.ts'
import { spawn } from '../runtime/thread.ts'
import { FOLDER_TEXTS } from '../weights/folder-files.ts'
import { keyOf, type MergeConfig, namedModels } from './config.ts'
import { type ModelFiles, type OpenModel, openModel } from './models.ts'
import { type MergePlan, planMerge } from './plan.ts'
import type { MergeTensorRequest } from './tensor.ts'

export interface MergeRequest {
  readonly config: MergeConfig
  /** The files of each named model, by `model` or `model+adapter`. */
  readonly models: Readonly<Record<string, ModelFiles>>
  readonly out: string
  readonly threads: number
}

export type MergeEvent =
  | { type: 'planned'; tensors: number; bytes: number; done: number }
  | { type: 'tensor'; name: string; done: number; tensors: number }
  | { type: 'merged'; files: readonly string[]; note?: string }

const WORKER = new URL('./worker.ts', import.meta.url)
/** Lies in the folder until all is done. */
const NOTES = '.merge.jsonl'

/** Opens and checks every model of a merge; throws before any work what does not fit. */
export async function prepareMerge({
  config,
  models,
}: Pick<MergeRequest, 'config' | 'models'>): Promise<MergePlan> {
  const opened = new Map<string, OpenModel>()
  for (const name of namedModels(config)) {
    const files = models[keyOf(name)]
    if (!files) throw new Error(`${keyOf(name)}: nothing is known of its files`)
    opened.set(keyOf(name), await openModel(name, files))
  }
  return planMerge(config, opened)
}

/** What a merge says where a disk is full. */
export const FULL = 'The merge was stopped: there is no more room for its files on the disk'

/** Merges into `out`. Aborting ends between two tensors; the same request later goes on from there. */
export async function* merge(
  request: MergeRequest,
  signal?: AbortSignal,
): AsyncGenerator<MergeEvent, void, undefined> {
  const plan = await prepareMerge(request)
  try {
    yield* write(plan, request, signal)
  } catch (cause) {
    throw isDiskFull(cause) ? noRoom(FULL) : cause
  }
}

async function* write(
  plan: MergePlan,
  { out, threads, config }: MergeRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<MergeEvent, void, undefined> {
  await mkdir(out, { recursive: true })
  const bytes = plan.shards.reduce((n, shard) => n + shard.bytes, 0)
  const done = await begin(plan, out, bytes)
  const tensors = plan.tensors.length
  yield { type: 'planned', tensors, bytes, done: done.size }

  // The largest first, so that no thread is left alone with one at the end.
  const waiting = plan.tensors
    .filter(({ name }) => !done.has(name))
    .sort((a, b) => b.bytes - a.bytes)
  const notes = await open(join(out, NOTES), 'a')
  const pool = Array.from({ length: Math.max(1, Math.min(threads, waiting.length)) }, () =>
    spawn<MergeTensorRequest, never>(WORKER),
  )
  try {
    const running = new Map<number, Promise<{ at: number; name: string }>>()
    const next = (at: number) => {
      const tensor = signal?.aborted ? undefined : waiting.shift()
      if (!tensor) return running.delete(at)
      const file = join(out, plan.shards[tensor.shard]!.name)
      const { method, seed } = plan
      const work = async () => {
        for await (const _ of pool[at]!.run({ method, seed, tensor, file }));
        return { at, name: tensor.name }
      }
      return running.set(at, work())
    }
    for (let at = 0; at < pool.length; at++) next(at)
    try {
      while (running.size > 0) {
        const { at, name } = await Promise.race(running.values())
        done.add(name)
        await notes.write(`${JSON.stringify(name)}\n`)
        next(at)
        yield { type: 'tensor', name, done: done.size, tensors }
      }
    } finally {
      await Promise.allSettled(running.values())
    }
    signal?.throwIfAborted()
  } finally {
    await notes.close()
    for (const thread of pool) await thread[Symbol.asyncDispose]()
  }
  yield { type: 'merged', files: await finish(plan, out, config) }
}

/** Lays the files out, or finds what an earlier run of the same merge has done. */
async function begin(plan: MergePlan, out: string, bytes: number): Promise<Set<string>> {
  const file = join(out, NOTES)
  const lines = existsSync(file) ? (await readFile(file, 'utf8')).split('\n') : []
  // A line that a crash cut off is no line.
  const read = lines.slice(0, -1).map((line) => JSON.parse(line) as string)
  if (read[0] === plan.fingerprint) return new Set(read.slice(1))
  const { bavail, bsize } = await statfs(out)
  if (bavail * bsize < bytes)
    throw noRoom(
      `The merge needs ${Math.ceil(bytes / 1e6)} MB, and the disk has ${Math.floor((bavail * bsize) / 1e6)} MB left`,
    )
  if (read.length === 0 && existsSync(join(out, 'config.json')))
    throw new Error('The folder holds a model already; choose another one')
  for (const { name, header, bytes } of plan.shards) {
    await writeFile(join(out, name), header)
    await truncate(join(out, name), bytes)
  }
  await writeFile(file, `${JSON.stringify(plan.fingerprint)}\n`)
  return new Set()
}

/** All beside the weights; config.json last, for with it the folder is a model. */
async function finish(plan: MergePlan, out: string, config: MergeConfig): Promise<string[]> {
  const files = plan.shards.map(({ name }) => name)
  for (const name of files) {
    const handle = await open(join(out, name), 'r+')
    await handle.sync().finally(() => handle.close())
  }
  if (files.length > 1) {
    const total_size = plan.tensors.reduce((n, { bytes }) => n + bytes, 0)
    const weight_map = Object.fromEntries(
      plan.tensors.map(({ name, shard }) => [name, plan.shards[shard]!.name]),
    )
    const index = { metadata: { total_size }, weight_map }
    await writeFile(
      join(out, 'model.safetensors.index.json'),
      `${JSON.stringify(index, null, 2)}\n`,
    )
    files.push('model.safetensors.index.json')
  }
  for (const [name, bytes] of plan.texts ?? []) {
    await writeFile(join(out, name), bytes)
    files.push(name)
  }
  for (const name of plan.texts ? [] : FOLDER_TEXTS)
    if (existsSync(join(plan.reference, name))) {
      await copyFile(join(plan.reference, name), join(out, name))
      files.push(name)
    }
  const template = config.chat_template
  if (template !== undefined && template !== 'auto') {
    if (!template.includes('{'))
      throw new Error(`chat_template: ${JSON.stringify(template)} is no template`)
    await writeFile(join(out, 'chat_template.jinja'), template)
    if (!files.includes('chat_template.jinja')) files.push('chat_template.jinja')
  }
  await writeFile(join(out, 'config.json'), `${JSON.stringify(plan.config, null, 2)}\n`)
  await rm(join(out, NOTES))
  return [...files, 'config.json']
}
