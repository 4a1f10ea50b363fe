// Forecast beside reality: seconds of a step and peak memory, each case in a process of its own.
//
//   npx tsx bench/forecast.ts DECODER ENCODER CACHE
//
// DECODER is a model of the llama family, ENCODER one of bert's, as Hugging Face folders.

import { availableParallelism } from 'node:os'
import { forecastStep } from '../src/engine/train/forecast-job.ts'
import { methodOf } from '../src/engine/train/methods/index.ts'
import { throughputOf } from '../src/engine/train/throughput.ts'
import { openCheckpoint } from '../src/engine/weights/checkpoint.ts'
import { measureApart } from './measure.ts'
import { type Case, planOf } from './training-case.ts'

const [decoder, encoder, cache] = process.argv.slice(2)
if (!decoder || !encoder || !cache) throw new Error('usage: forecast.ts DECODER ENCODER CACHE')

const lora: Case = {
  method: 'supervised',
  adapter: 'lora',
  rank: 8,
  rows: 1,
  length: 256,
  every: 4,
  keep: 'everything',
  precision: 'int8',
}
const text: Case = {
  ...lora,
  method: 'classification',
  rows: 8,
  length: 128,
  every: 1,
  precision: 'fp32',
}
const CASES: readonly (readonly [string, Partial<Case>])[] = [
  [decoder, { length: 128 }],
  [decoder, { length: 256 }],
  [decoder, { length: 256, every: 1 }],
  [decoder, { length: 256, precision: 'fp32' }],
  [decoder, { length: 512 }],
  [decoder, { length: 512, precision: 'fp32' }],
  [decoder, { length: 512, keep: 'blocks' }],
  [decoder, { rows: 4, length: 128, every: 1 }],
  [decoder, { length: 256, method: 'dpo' }],
  [decoder, { length: 128, adapter: 'none', precision: 'fp32' }],
  [encoder, text],
  [encoder, { ...text, rows: 4, length: 256 }],
  [encoder, { ...text, precision: 'int8' }],
  [encoder, { ...text, adapter: 'none' }],
]

const compute = { device: 'cpu' as const, threads: availableParallelism() }
const throughput = await throughputOf(compute, cache)
console.log(
  Object.entries(throughput)
    .map(([kind, x]) => `${kind} ${(x / 1e9).toPrecision(3)} G/s`)
    .join(', '),
)
const spread = (forecast: number, real: number) => (forecast / real).toFixed(2).padStart(5)
for (const [model, wishes] of CASES) {
  const wanted = { ...lora, ...wishes }
  const { method, adapter, rows, length, every, keep, precision } = wanted
  const { config } = await openCheckpoint(model)
  const forecast = forecastStep({
    method: methodOf(method),
    config,
    plan: planOf(wanted, config),
    precision,
    supervised: method === 'classification' ? rows : Math.floor((rows * length) / every),
    pairs: rows,
    throughput,
  })
  const real = await measureApart('./training-run.ts', [model, cache, JSON.stringify(wanted)])
  const value = (name: string) => real.find((m) => m.name === name)!.value
  const seconds = forecast.run_seconds + forecast.update_seconds
  const name = `${method}, ${adapter}, ${rows}×${length}/${every}, ${keep}, ${precision}`
  console.log(
    `${name.padEnd(52)} s ${seconds.toFixed(3)} ${value('seconds').toFixed(3)} ${spread(seconds, value('seconds'))}` +
      `   MB ${(forecast.peak_memory / 2 ** 20).toFixed(0)} ${value('peak').toFixed(0)} ${spread(forecast.peak_memory / 2 ** 20, value('peak'))}`,
  )
}
