// Decoding beside llama.cpp on the same GGUF file, interleaved in one run: child processes compute llama.cpp's side, one
// for each number of threads, of which the better one counts.
//
//   npx tsx bench/peers/decoding.ts MODEL.gguf CACHE --llama FOLDER [--threads 1,2] [--rounds 7]
//
// FOLDER is one where `npm i node-llama-cpp` was run. Medians over the rounds, and the median of the rounds' ratios with its
// quartiles. Adapters are random ones of rank 8 on all projections; llama.cpp answers by the plain base. The floor is what
// reading the weights once a token takes: their bytes over the bandwidth that both cores together read with.

import { type ChildProcess, spawn as spawnProcess } from 'node:child_process'
import { statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import type { InferEvent, InferThreadRequest } from '../../src/engine/infer/request.ts'
import { spawn } from '../../src/engine/runtime/thread.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { randomAdapter } from '../serving/random-adapter.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    llama: { type: 'string' },
    threads: { type: 'string', default: '1,2' },
    rounds: { type: 'string', default: '7' },
  },
})
const [model, cache] = positionals
if (!model || !cache || !values.llama)
  throw new Error('usage: decoding.ts MODEL.gguf CACHE --llama FOLDER [--threads 1,2] [--rounds 7]')

/** Tokens that each stream writes after its first, and those of a long prompt. */
const TOKENS = 96
const LONG = 512

type What = 'one' | 'eight' | 'prompt'

class Llama {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(threads: string) {
    const entry = fileURLToPath(new URL('./decoding_llama.mjs', import.meta.url))
    this.#child = spawnProcess(
      process.execPath,
      [entry, values.llama!, model!, threads, String(TOKENS), String(LONG)],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    )
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  async next(): Promise<string> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('llama.cpp ended')
    return value
  }

  async measure(what: What, salt: number): Promise<number> {
    this.#child.stdin!.write(`${what} ${salt}\n`)
    return Number(await this.next())
  }

  end() {
    this.#child.stdin!.end()
  }
}

await using thread = spawn<InferThreadRequest, InferEvent>(
  new URL('../../src/engine/infer/worker.ts', import.meta.url),
)
const target = { model, cache }
for await (const _ of thread.run({ type: 'load', target }));
const adapters = await randomAdapters(8)

const SENTENCE = 'Write a long letter to a friend about a walk along the coast in autumn. '
async function stream(salt: string, tokens: number, adapter?: string) {
  let first = 0
  let count = 0
  const begun = performance.now()
  for await (const event of thread.run({
    type: 'generate',
    target: adapter === undefined ? target : { ...target, adapter },
    prompt: { text: `${salt} ${tokens === 1 ? SENTENCE.repeat(32) : SENTENCE.repeat(4)}` },
    max_tokens: tokens,
    stop: [],
    n: 1,
    sampling: { temperature: 0.8, top_p: 1, seed: 1, logit_bias: { 0: -100, 2: -100 } },
  })) {
    if (event.type === 'prompt') count = event.prompt_tokens
    if (event.type === 'delta') first ||= performance.now()
  }
  return { begun, first, end: performance.now(), prompt: count }
}

async function ours(what: What, salt: number, tuned: boolean): Promise<number> {
  if (what === 'prompt') {
    const { begun, end, prompt } = await stream(`${salt}`, 1)
    return (prompt * 1000) / (end - begun)
  }
  const n = what === 'eight' ? 8 : 1
  const runs = await Promise.all(
    Array.from({ length: n }, (_, i) =>
      stream(`${salt}.${i}`, TOKENS + 1, tuned ? adapters[i] : undefined),
    ),
  )
  const first = Math.max(...runs.map(({ first }) => first))
  const begun = Math.min(...runs.map(({ first }) => first))
  const end = Math.max(...runs.map(({ end }) => end))
  // While the prompts of eight are read one after the other, the first of them write already.
  return (n * TOKENS * 1000) / (end - (n === 1 ? first : begun))
}

const quantile = (xs: readonly number[], q: number) =>
  xs.toSorted((a, b) => a - b)[Math.round(q * (xs.length - 1))]!
const llamas = values.threads.split(',').map((threads) => ({ threads, llama: new Llama(threads) }))
for (const { llama } of llamas) await llama.next()

const bandwidth = await readBandwidth()
const [folder] = (await readdir(cache)).filter((name) => /int4-.*safetensors$/.test(name))
const bytes = { ours: folder ? statSync(join(cache, folder)).size : 0, llama: statSync(model).size }
const floor = (size: number) => (bandwidth / size).toFixed(0)
console.log(
  `both cores read ${(bandwidth / 1e9).toFixed(1)} GB/s; one stream's floor: ours ${(bytes.ours / 1e6).toFixed(0)} MB, ${floor(bytes.ours)} tokens/s; llama.cpp ${(bytes.llama / 1e6).toFixed(0)} MB, ${floor(bytes.llama)} tokens/s`,
)

const CASES: { name: string; what: What; tuned: boolean }[] = [
  { name: 'one', what: 'one', tuned: false },
  { name: 'one, adapter', what: 'one', tuned: true },
  { name: 'prompt', what: 'prompt', tuned: false },
  { name: 'eight', what: 'eight', tuned: false },
  { name: 'eight, 8 adapters', what: 'eight', tuned: true },
]
for (const { name, what, tuned } of CASES) {
  const own: number[] = []
  const theirs = llamas.map((): number[] => [])
  for (let round = -1; round < Number(values.rounds); round++) {
    const a = await ours(what, round, tuned)
    const bs: number[] = []
    for (const { llama } of llamas) bs.push(await llama.measure(what, round + 2))
    if (round < 0) continue // the first run of each warms it up
    own.push(a)
    for (const [i, b] of bs.entries()) theirs[i]!.push(b)
  }
  const medians = theirs.map((xs) => quantile(xs, 0.5))
  const best = medians.indexOf(Math.max(...medians))
  const ratios = own.map((a, i) => a / theirs[best]![i]!)
  const [low, middle, high] = [0.25, 0.5, 0.75].map((q) => quantile(ratios, q).toFixed(2))
  console.log(
    `${name.padEnd(18)} ours ${quantile(own, 0.5).toFixed(0).padStart(5)} tokens/s   llama.cpp ${medians[best]!.toFixed(0).padStart(5)} (${llamas[best]!.threads} threads)   ${middle} × (${low} … ${high})`,
  )
}
for (const { llama } of llamas) llama.end()

async function randomAdapters(count: number): Promise<string[]> {
  const weights = await mapWeights(await openCheckpoint(model!), cache!)
  const target_modules = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'].map((name) => `${name}_proj`)
  return Promise.all(
    Array.from({ length: count }, (_, seed) =>
      randomAdapter(weights, join(cache!, 'peer-adapters', String(seed)), {
        seed,
        rank: 8,
        target_modules,
      }),
    ),
  )
}

/** Bytes a second that two threads read together, comparing what lies far apart. */
async function readBandwidth(): Promise<number> {
  const code = `
    const { parentPort } = require('node:worker_threads')
    const [a, b] = [Buffer.alloc(2 ** 28, 1), Buffer.alloc(2 ** 28, 1)]
    a.equals(b)
    parentPort.on('message', () => {
      const begun = performance.now()
      for (let i = 0; i < 8; i++) a.equals(b)
      parentPort.postMessage((8 * 2 ** 29 * 1000) / (performance.now() - begun))
    })
    parentPort.postMessage(0)`
  const workers = [0, 1].map(() => new Worker(code, { eval: true }))
  const said = () =>
    Promise.all(workers.map((w) => new Promise<number>((done) => w.once('message', done))))
  await said()
  const answers = said()
  for (const worker of workers) worker.postMessage(0)
  const sum = (await answers).reduce((x, y) => x + y, 0)
  await Promise.all(workers.map((worker) => worker.terminate()))
  return sum
}
