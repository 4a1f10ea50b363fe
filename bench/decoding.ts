// One stream and eight streams of one prompt through the inference thread: tokens/s after the first token.

import type { InferEvent, InferThreadRequest } from '../src/engine/infer/request.ts'
import { spawn } from '../src/engine/runtime/thread.ts'
import { type Measured, memory } from './measure.ts'

const [model, cache] = process.argv.slice(2)
if (!model || !cache) throw new Error('usage: decoding.ts MODEL CACHE')

const TOKENS = 128
const PROMPT = 'Write a long letter to a friend about a walk along the coast in autumn.'

await using thread = spawn<InferThreadRequest, InferEvent>(
  new URL('../src/engine/infer/worker.ts', import.meta.url),
)
const target = { model, cache }
for await (const _ of thread.run({ type: 'load', target }));

const measured: Measured[] = []
for (const n of [1, 8]) {
  await decode(n, 8)
  const { tokens, seconds, first } = await decode(n, TOKENS)
  measured.push(
    { name: `decoding, ${n} at once`, value: tokens / seconds, unit: 'tokens/s' },
    { name: `first token, ${n} at once`, value: first * 1000, unit: 'ms' },
  )
}
process.stdout.write(JSON.stringify([...measured, ...memory()]))

async function decode(n: number, max_tokens: number) {
  const begun = performance.now()
  let started = 0
  let tokens = 0
  for await (const event of thread.run({
    type: 'generate',
    target,
    prompt: { messages: [{ role: 'user', content: PROMPT }] },
    max_tokens,
    stop: [],
    n,
    sampling: { temperature: 1, top_p: 1, seed: 1 },
  })) {
    if (event.type === 'delta') started ||= performance.now()
    if (event.type === 'finish') tokens += event.completion_tokens
  }
  const seconds = (performance.now() - started) / 1000
  return { tokens: tokens - n, seconds, first: (started - begun) / 1000 }
}
