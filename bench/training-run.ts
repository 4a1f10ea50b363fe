// One process of bench/forecast.ts: steps of one micro-batch of any method, timed; prints seconds of a step and peak memory.
//
//   training-run.ts MODEL CACHE CASE        CASE: a `Case` as JSON

import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { Example } from '../src/engine/datasets/example.ts'
import type { PreferenceExample } from '../src/engine/datasets/preference-example.ts'
import { textExample } from '../src/engine/datasets/text-example.ts'
import { withInt8 } from '../src/engine/models/int8.ts'
import { uniform } from '../src/engine/random.ts'
import { openTokenizer } from '../src/engine/tokenizer/tokenizer.ts'
import { methodOf } from '../src/engine/train/methods/index.ts'
import { createMoments } from '../src/engine/train/optimizer.ts'
import { subjectOf } from '../src/engine/train/subject-of.ts'
import { createTrainer } from '../src/engine/train/trainer.ts'
import { openCheckpoint } from '../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../src/engine/weights/mapped.ts'
import type { Measured } from './measure.ts'
import { type Case, planOf } from './training-case.ts'

const [model, cache, json] = process.argv.slice(2)
if (!model || !cache || !json) throw new Error('usage: training-run.ts MODEL CACHE CASE')
const wanted = JSON.parse(json) as Case
const { rows, length, every } = wanted

const checkpoint = await openCheckpoint(model)
const plain = await mapWeights(checkpoint, cache)
const tokenizer = await openTokenizer(checkpoint)
const weights = wanted.precision === 'int8' ? await withInt8(plain, cache, tokenizer) : plain
const method = methodOf(wanted.method)
const plan = planOf(wanted, checkpoint.config)

const { vocab_size } = checkpoint.config
const idsOf = (row: number) =>
  Int32Array.from({ length }, (_, i) => Math.floor(uniform(0, row, i) * vocab_size))
const examples = Array.from({ length: rows }, (_, row): Example => {
  const tokens = idsOf(row)
  if (method.encoders)
    return textExample(
      row + 1,
      [{ ids: [...tokens], types: [...tokens.map(() => 0)], truncated: false }],
      [row % 2],
    )
  const preferred = length / 2
  const start = (i: number) => i === 0 || (wanted.method === 'dpo' && i === preferred)
  const weights = Float32Array.from({ length }, (_, i) => Number(!start(i) && i % every === 0))
  const example = { line: row + 1, tokens, weights }
  return wanted.method === 'dpo' ? ({ ...example, preferred } as PreferenceExample) : example
})

const subject = subjectOf(method, {
  checkpoint,
  weights,
  plan,
  seed: 1,
  initial: undefined,
  examples,
})
const state = {
  step: 0,
  adapter: await subject.start(),
  moments: createMoments(subject.parameters),
}
await using trainer = await createTrainer(state, {
  objective: subject.objective,
  threads: availableParallelism(),
  weightDecay: 0.01,
  maxGradNorm: 1,
  rates: subject.rates,
  turn: async () => ({ [Symbol.dispose]() {} }),
})
await trainer.step(examples, 1e-5)
const times: number[] = []
for (let i = 0; i < (wanted.steps ?? 5); i++) {
  const start = performance.now()
  await trainer.step(examples, 1e-5)
  times.push((performance.now() - start) / 1000)
}
const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
times.sort((a, b) => a - b)
const measured: Measured[] = [
  { name: 'seconds', value: times[times.length >> 1]!, unit: 's' },
  { name: 'fastest', value: times[0]!, unit: 's' },
  { name: 'peak', value: peak / 1024, unit: 'MB' },
]
process.stdout.write(JSON.stringify(measured))
