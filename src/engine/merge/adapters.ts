// Adapters made of adapters, or out of a model: module by module over several threads, into PEFT's two files.

import { existsSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDiskFull, noRoom } from '../../errors.ts'
import { spawn } from '../runtime/thread.ts'
import { type LoraPair, writeAdapter, writeAdapterConfig } from '../weights/adapter.ts'
import type { AdapterMergeConfig } from './adapter-config.ts'
import { type AdapterModule, difference, type MadePair, squares } from './adapter-pair.ts'
import { type AdapterPlan, planCombination, planExtraction, sizeOf } from './adapter-plan.ts'
import type { ExtractionConfig } from './extract-config.ts'
import { FULL, type MergeEvent, type MergeRequest } from './merge.ts'

export const ADAPTER_FILES = ['adapter_model.safetensors', 'adapter_config.json'] as const

export interface AdapterRequest extends Omit<MergeRequest, 'config'> {
  readonly config: AdapterMergeConfig | ExtractionConfig
}

const WORKER = new URL('./adapter-worker.ts', import.meta.url)

/** Opens and checks what the adapter is made of, before any work. */
export const planAdapter = ({
  config,
  models,
}: Pick<AdapterRequest, 'config' | 'models'>): Promise<AdapterPlan> =>
  config.kind === 'adapters' ? planCombination(config, models) : planExtraction(config, models)

/** Makes the adapter in `out`. Begun again, it begins anew: the same request gives the same bytes. */
export async function* makeAdapter(
  request: AdapterRequest,
  signal?: AbortSignal,
): AsyncGenerator<MergeEvent, void, undefined> {
  const { out, threads } = request
  const plan = await planAdapter(request)
  await mkdir(out, { recursive: true })
  for (const name of ['config.json', 'adapter_config.json'])
    if (existsSync(join(out, name)))
      throw new Error('The folder holds a model already; choose another one')
  const tensors = plan.modules.length
  yield { type: 'planned', tensors, bytes: plan.bytes, done: 0 }
  const made = new Map<string, MadePair>()
  for await (const one of inThreads(plan.modules, threads, signal)) {
    made.set(one.module, one)
    yield { type: 'tensor', name: one.module, done: made.size, tensors }
  }
  const pairs = new Map<string, LoraPair>()
  for (const { module } of plan.modules)
    pairs.set(module, atRank(made.get(module)!.pair, plan.config.r))
  const note = request.config.kind === 'extraction' ? await account(plan, made) : undefined
  const { config, beside } = plan
  try {
    const [weights, words] = ADAPTER_FILES.map((name) => join(out, name)) as [string, string]
    await writeFile(weights, writeAdapter({ config, pairs, ...beside }), { flush: true })
    // With its config the folder is an adapter: it comes last, and whole.
    await writeFile(`${words}.part`, writeAdapterConfig(config), { flush: true })
    await rename(`${words}.part`, words)
  } catch (cause) {
    throw isDiskFull(cause) ? noRoom(FULL) : cause
  }
  yield { type: 'merged', files: ADAPTER_FILES, ...(note !== undefined && { note }) }
}

/** The largest first; a thread has one module at a time. */
async function* inThreads(
  modules: readonly AdapterModule[],
  threads: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<MadePair, void, undefined> {
  const waiting = modules.toSorted((a, b) => sizeOf(b) - sizeOf(a))
  const pool = Array.from({ length: Math.max(1, Math.min(threads, waiting.length)) }, () =>
    spawn<AdapterModule, MadePair>(WORKER),
  )
  const running = new Map<number, Promise<{ at: number; made: MadePair }>>()
  const next = (at: number) => {
    const work = signal?.aborted ? undefined : waiting.shift()
    if (!work) return running.delete(at)
    return running.set(at, one(at, work))
  }
  const one = async (at: number, work: AdapterModule) => {
    for await (const made of pool[at]!.run(work)) return { at, made }
    throw new Error(`${work.module}: the thread ended without a result`)
  }
  try {
    for (let at = 0; at < pool.length; at++) next(at)
    while (running.size > 0) {
      const { at, made } = await Promise.race(running.values())
      next(at)
      yield made
    }
    signal?.throwIfAborted()
  } finally {
    await Promise.allSettled(running.values())
    for (const thread of pool) await thread[Symbol.asyncDispose]()
  }
}

/** A pair of a lower rank with zeros beside it: one adapter has one rank. */
function atRank({ a, b, ...shape }: LoraPair, r: number): LoraPair {
  const { in_features: inner, out_features: out } = shape
  const own = a.length / inner
  if (own === r) return { a, b, ...shape }
  const wide = { a: new Float32Array(r * inner), b: new Float32Array(out * r) }
  wide.a.set(a)
  for (let o = 0; o < out; o++) wide.b.set(b.subarray(o * own, (o + 1) * own), o * r)
  return { ...wide, ...shape }
}

/** How much of what was learned the adapter has, as a sentence. */
async function account(
  { others }: AdapterPlan,
  made: ReadonlyMap<string, MadePair>,
): Promise<string> {
  let all = 0
  let kept = 0
  for (const { learned } of made.values()) {
    all += learned!.all
    kept += learned!.kept
  }
  let outside = 0
  let most = { name: '', share: 0 }
  for (const other of others) {
    const share = squares(await difference(other))
    outside += share
    if (share > most.share) most = { name: other.name, share }
  }
  const percent = (part: number, of: number) => `${of > 0 ? ((100 * part) / of).toFixed(2) : 100} %`
  const within = `The adapter has ${percent(kept, all)} of the squared difference of its ${made.size} modules`
  return outside > 0
    ? `${within}; ${percent(outside, all + outside)} of the whole difference lies in tensors that it does not hold, most in ${most.name}`
    : within
}
