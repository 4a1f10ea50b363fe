// tsx bench/serving/adapters.ts MODEL CACHE [--rounds 5] [--requests 100]: 100 adapters of mixed rank and targets, 16 requests
// in flight, each on an adapter of its own; tokens/s beside the same load on the base alone, in turns.

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { InferEvent, InferThreadRequest } from '../../src/engine/infer/request.ts'
import { spawn } from '../../src/engine/runtime/thread.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'
import { randomAdapter } from './random-adapter.ts'
import { quantile } from './server.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    requests: { type: 'string', default: '100' },
  },
})
const [model, cache] = positionals
if (!model || !cache)
  throw new Error('usage: adapters.ts MODEL CACHE [--rounds 5] [--requests 100]')

const ADAPTERS = 100
const IN_FLIGHT = 16
const TOKENS = 48
const RANKS = [4, 8, 16, 32]
const ALL = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'].map((name) => `${name}_proj`)
const TARGETS = [ALL, ['q_proj', 'v_proj'], ['q_proj', 'k_proj', 'v_proj', 'o_proj'], ALL, ALL]

const weights = await mapWeights(await openCheckpoint(model), cache)
const adapters: string[] = []
for (let i = 0; i < ADAPTERS; i++)
  adapters.push(
    await randomAdapter(weights, join(cache, 'bench-adapters', String(i)), {
      seed: i,
      rank: RANKS[i % RANKS.length]!,
      target_modules: TARGETS[i % TARGETS.length]!,
    }),
  )
await using thread = spawn<InferThreadRequest, InferEvent>(
  new URL('../../src/engine/infer/worker.ts', import.meta.url),
)

/** Tokens/s over all requests, from the first one's start to the last one's end. */
async function load(round: number, adapterOf: (request: number) => string | undefined) {
  let next = 0
  let tokens = 0
  const begun = performance.now()
  const client = async () => {
    while (next < Number(values.requests)) {
      const i = next++
      const adapter = adapterOf(i)
      for await (const event of thread.run({
        type: 'generate',
        target: { model: model!, cache: cache!, ...(adapter && { adapter }) },
        prompt: {
          text: `Letter ${round}.${i}: dear friend, today I walked along the coast and saw `,
        },
        max_tokens: TOKENS,
        stop: [],
        n: 1,
        sampling: { temperature: 0.8, top_p: 1, seed: i, logit_bias: { 0: -100, 2: -100 } },
      }))
        if (event.type === 'finish') tokens += event.completion_tokens
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, client))
  return (tokens * 1000) / (performance.now() - begun)
}

// Every adapter is loaded in the first round, which does not count.
const [base, tuned]: [number[], number[]] = [[], []]
for (let round = -1; round < Number(values.rounds); round++) {
  const plain = await load(2 * round, () => undefined)
  const many = await load(2 * round + 1, (i) => adapters[(i * 37 + round) % ADAPTERS])
  if (round < 0) {
    console.log(`adapters that are loaded as they come: ${many.toFixed(0)} tokens/s`)
    continue
  }
  base.push(plain)
  tuned.push(many)
}
const ratios = tuned.map((x, i) => x / base[i]!)
const [low, middle, high] = [0.25, 0.5, 0.75].map((q) => quantile(ratios, q).toFixed(2))
console.log(
  `${ADAPTERS} adapters, ${IN_FLIGHT} in flight: base ${quantile(base, 0.5).toFixed(0)} tokens/s, adapters ${quantile(tuned, 0.5).toFixed(0)}, ${middle} × (${low} … ${high})`,
)
