// Decoding beside llama.cpp on the same GGUF file, interleaved in one run: a child process computes llama.cpp's side.
//
//   npx tsx bench/peers/decoding.ts MODEL.gguf CACHE --llama FOLDER [--threads 1] [--rounds 5]
//
// FOLDER is one where `npm i node-llama-cpp` was run. Medians over the rounds, and the ratio; llama.cpp at its best number
// of threads, which is to be tried: on two cores one is faster than two for a single stream.

import { type ChildProcess, spawn as spawnProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { InferEvent, InferThreadRequest } from '../../src/engine/infer/request.ts'
import { spawn } from '../../src/engine/runtime/thread.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    llama: { type: 'string' },
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '5' },
  },
})
const [model, cache] = positionals
if (!model || !cache || !values.llama)
  throw new Error('usage: decoding.ts MODEL.gguf CACHE --llama FOLDER [--threads 1] [--rounds 5]')

/** Tokens that each stream writes after its first, and those of a long prompt. */
const TOKENS = 96
const LONG = 512

const ARGS = [values.llama, model, values.threads, String(TOKENS), String(LONG)]

type What = 'one' | 'eight' | 'prompt'

class Llama {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor() {
    this.#child = spawnProcess(
      process.execPath,
      [fileURLToPath(new URL('./decoding_llama.mjs', import.meta.url)), ...ARGS],
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

const SENTENCE = 'Write a long letter to a friend about a walk along the coast in autumn. '
async function stream(salt: string, tokens: number) {
  let first = 0
  let count = 0
  const begun = performance.now()
  for await (const event of thread.run({
    type: 'generate',
    target,
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

async function ours(what: What, salt: number): Promise<number> {
  if (what === 'prompt') {
    const { begun, end, prompt } = await stream(`${salt}`, 1)
    return (prompt * 1000) / (end - begun)
  }
  const n = what === 'eight' ? 8 : 1
  const runs = await Promise.all(
    Array.from({ length: n }, (_, i) => stream(`${salt}.${i}`, TOKENS + 1)),
  )
  const first = Math.max(...runs.map(({ first }) => first))
  const begun = Math.min(...runs.map(({ first }) => first))
  const end = Math.max(...runs.map(({ end }) => end))
  // While the prompts of eight are read one after the other, the first of them write already.
  return (n * TOKENS * 1000) / (end - (n === 1 ? first : begun))
}

const middle = (xs: number[]) => xs.sort((a, b) => a - b)[xs.length >> 1]!
const llama = new Llama()
await llama.next()
for (const what of ['one', 'prompt', 'eight'] as const) {
  const results = { ours: [] as number[], llama: [] as number[] }
  for (let round = -1; round < Number(values.rounds); round++) {
    const [a, b] = [await ours(what, round), await llama.measure(what, round + 2)]
    if (round < 0) continue // the first run of each warms it up
    results.ours.push(a)
    results.llama.push(b)
  }
  const [a, b] = [middle(results.ours), middle(results.llama)]
  console.log(
    `${what.padEnd(8)} ours ${a.toFixed(0).padStart(5)} tokens/s   llama.cpp ${b.toFixed(0).padStart(5)}   ${(a / b).toFixed(2)} ×`,
  )
}
llama.end()
