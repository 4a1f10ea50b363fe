// What tunes the rules of `auto`: each hyperparameter moved by itself, away from what the rules choose, over files of
// several sizes. A row of the table that stands well below `auto` is a reason to change a rule.
//
//     npx tsx bench/auto-rules.ts --model MODEL --data train.csv --out OUT [--method classification|supervised]
//         [--intents 10] [--sizes 40,200,1000] [--seeds 1,2] [--measured 10] [--precision fp32]
//
// Prints, as means over seeds: the lowest validation loss of any epoch, the held-out accuracy there, and seconds.

import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Hyperparameters } from '../src/engine/train/request.ts'
import { bestEpoch } from '../src/engine/train/stopping.ts'
import { deal, drawIntents, readQuestions, writeRows } from './banking77.ts'
import { type Epoch, validated } from './validated.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    out: { type: 'string' },
    method: { type: 'string', default: 'classification' },
    intents: { type: 'string', default: '10' },
    sizes: { type: 'string', default: '40,200,1000' },
    seeds: { type: 'string', default: '1,2' },
    /** Rows of each intent that choose, and as many that count. */
    measured: { type: 'string', default: '10' },
    precision: { type: 'string', default: 'fp32' },
  },
})
const { model, data, out } = values
if (!model || !data || !out) throw new Error('usage: auto-rules.ts --model M --data CSV --out O')
const method: 'supervised' | 'classification' =
  values.method === 'supervised' ? 'supervised' : 'classification'
await mkdir(out, { recursive: true })
const questions = await readQuestions(data)

interface Auto {
  n_epochs: number
  batch_size: number
  rank: number
}
/** One hyperparameter at a time. */
const candidates = (auto: Auto): [string, Partial<Hyperparameters>][] => [
  ['learning rate / 4', { learning_rate_multiplier: 0.25 }],
  ['learning rate / 2', { learning_rate_multiplier: 0.5 }],
  ['learning rate × 2', { learning_rate_multiplier: 2 }],
  ['learning rate × 4', { learning_rate_multiplier: 4 }],
  [`epochs ${Math.ceil(auto.n_epochs / 2)}`, { n_epochs: Math.ceil(auto.n_epochs / 2) }],
  [`epochs ${Math.min(50, auto.n_epochs * 2)}`, { n_epochs: Math.min(50, auto.n_epochs * 2) }],
  [`batch ${Math.ceil(auto.batch_size / 2)}`, { batch_size: Math.ceil(auto.batch_size / 2) }],
  [`batch ${auto.batch_size * 2}`, { batch_size: auto.batch_size * 2 }],
  [`rank ${Math.ceil(auto.rank / 4)}`, { lora: { rank: Math.ceil(auto.rank / 4) } }],
  [`rank ${auto.rank * 4}`, { lora: { rank: auto.rank * 4 } }],
]

const precision: 'fp32' | 'int8' = values.precision === 'int8' ? 'int8' : 'fp32'
const measuredRows = Number(values.measured)
const intentCount = Number(values.intents)
const seeds = values.seeds.split(',').map(Number)
for (const size of values.sizes.split(',').map(Number)) {
  const mean = (xs: readonly number[]) => xs.reduce((a, b) => a + b) / xs.length
  const measure = async (name: string, hyperparameters: Partial<Hyperparameters>) => {
    const results = []
    let auto: Auto | undefined
    for (const seed of seeds) {
      const intents = drawIntents(questions, intentCount, seed)
      const each = size / intentCount
      const parts = deal(questions, intents, seed, each, measuredRows, measuredRows)
      const paths = ['train', 'measured'].map((n) => resolve(out, `${n}-${size}-${seed}.jsonl`))
      await writeRows(paths[0]!, parts[0]!, method)
      const run = {
        model: resolve(model),
        cache: join(out, 'cache'),
        method,
        hyperparameters: { precision, ...hyperparameters },
        seed,
      }
      // Trained twice to the same bytes, measured once on the rows that choose and once on those that count.
      const measured: Epoch[][] = []
      for (const part of [1, 2]) {
        await writeRows(paths[1]!, parts[part]!, method)
        const { epochs, plan, seconds } = await validated({
          ...run,
          training: paths[0]!,
          validation: paths[1]!,
        })
        measured.push(epochs)
        auto = { n_epochs: plan.n_epochs, batch_size: plan.batch_size, rank: plan.lora.rank }
        if (part === 1) results.push({ seconds, loss: 0, accuracy: 0 })
      }
      const [valid, held] = measured as [Epoch[], Epoch[]]
      const best = bestEpoch(valid.map(({ loss }) => loss))!
      Object.assign(results.at(-1)!, { loss: valid[best]!.loss, accuracy: held[best]!.accuracy })
    }
    const cells = [
      size,
      name,
      mean(results.map(({ loss }) => loss)).toFixed(3),
      `${(100 * mean(results.map(({ accuracy }) => accuracy))).toFixed(1)} %`,
      mean(results.map(({ seconds }) => seconds)).toFixed(0),
    ]
    console.log(`| ${cells.join(' | ')} |`)
    return auto!
  }
  if (size === Number(values.sizes.split(',')[0]))
    console.log(
      '| rows | what | lowest validation loss | held-out accuracy there | seconds |\n| --- | --- | --- | --- | --- |',
    )
  const auto = await measure('auto', {})
  console.log(
    `| ${size} | (auto: ${auto.n_epochs} epochs, batch ${auto.batch_size}, rank ${auto.rank}) | | | |`,
  )
  for (const [name, hyperparameters] of candidates(auto)) await measure(name, hyperparameters)
}
