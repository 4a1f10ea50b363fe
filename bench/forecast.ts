// Forecasts against reality: peak memory and step time of eight configurations of two models, each in a process of its own.
//
//   npx tsx bench/forecast.ts SMOLLM2 MINILM CACHE [--only 0,3]
//
// SMOLLM2 and MINILM are Hugging Face folders or .gguf files. The speed of each base in each precision is measured first,
// in a process of its own too, unless CACHE knows it.

import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import type { MethodName } from '../src/engine/train/methods/index.ts'
import type { Forecast, Plan } from '../src/engine/train/request.ts'

/** What forecast-run.ts is asked to try. */
export interface Configuration {
  readonly model: string
  readonly cache: string
  readonly method: MethodName
  readonly adapter?: 'none'
  readonly rank?: number
  /** Tokens of a row, rows of a step, and the share of tokens that is learned. */
  readonly length: number
  readonly batch: number
  readonly learned: number
  readonly precision: 'fp32' | 'int8'
  /** Bytes that training may take; absent: what is free. */
  readonly memory?: number
  readonly keep?: NonNullable<Plan['keep']>
  readonly steps: number
}

export interface Ran {
  readonly shape: string
  readonly keep: string
  readonly megabytes: number
  readonly seconds: number
  readonly forecast: Forecast
}

/** Runs one configuration apart. */
export async function runApart(configuration: Configuration): Promise<Ran> {
  const entry = fileURLToPath(new URL('./forecast-run.ts', import.meta.url))
  const args = ['--import', 'tsx', entry, JSON.stringify(configuration)]
  await promisify(execFile)(process.execPath, [...args, 'measure'])
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return JSON.parse(stdout) as Ran
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { only: { type: 'string' } },
  })
  const [smollm2, minilm, cache] = positionals.map((path) => resolve(path))
  if (!smollm2 || !minilm || !cache) throw new Error('see the head of this file')
  const decoder = { model: smollm2, cache, method: 'supervised', steps: 6 } as const
  const encoder = { model: minilm, cache, method: 'classification', steps: 12 } as const
  const configurations: Configuration[] = [
    { ...decoder, length: 64, batch: 8, learned: 0.25, precision: 'int8' },
    { ...decoder, length: 512, batch: 2, learned: 1, precision: 'int8' },
    { ...decoder, length: 1024, batch: 1, learned: 1, precision: 'int8', memory: 2.2e9 },
    { ...decoder, length: 128, batch: 8, learned: 0.5, precision: 'fp32', rank: 32 },
    { ...decoder, length: 128, batch: 2, learned: 0.5, precision: 'fp32', adapter: 'none' },
    { ...decoder, method: 'dpo', length: 128, batch: 2, learned: 0.4, precision: 'int8' },
    { ...encoder, length: 32, batch: 32, learned: 1, precision: 'int8' },
    { ...encoder, length: 128, batch: 32, learned: 1, precision: 'fp32', adapter: 'none' },
  ]
  const only = values.only?.split(',').map(Number)
  const percent = (forecast: number, real: number) =>
    `${forecast >= real ? '+' : '−'}${Math.abs((forecast / real - 1) * 100).toFixed(0)} %`
  console.log('| Model, method | Shape, kept | Memory, MB | Forecast | Step, s | Forecast |')
  console.log('| --- | --- | --- | --- | --- | --- |')
  for (const [i, c] of configurations.entries()) {
    if (only && !only.includes(i)) continue
    const { shape, keep, megabytes, seconds, forecast } = await runApart(c)
    const name = c.model === smollm2 ? 'SmolLM2-135M' : 'MiniLM'
    const how = c.adapter === 'none' ? 'all weights' : `rank ${c.rank ?? 8}`
    const planned = forecast.memory_bytes / 2 ** 20
    const step = forecast.step_seconds ?? Number.NaN
    console.log(
      `| ${name}, ${c.method}, ${how}, ${c.precision} | ${shape}, ${keep} | ${megabytes.toFixed(0)} | ${planned.toFixed(0)}, ${percent(planned, megabytes)} | ${seconds.toFixed(2)} | ${step.toFixed(2)}, ${percent(step, seconds)} |`,
    )
  }
}
