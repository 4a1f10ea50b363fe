// What stopping in time is worth on 40 rows over 20 epochs: the held-out accuracy of the checkpoint of lowest validation
// loss beside that of the last one.
//
//     npx tsx bench/early-stopping.ts --model MODEL --data train.csv --out OUT [--method classification|supervised]
//         [--seeds 1,2,3] [--rate RATE] [--held-out 20] [--valid 10] [--patience 5]
//         [--precision fp32]
//
// Ten intents, four rows each; validation ten rows an intent, held out twenty. Each seed is trained twice, measured on
// the validation rows and on those held out: what is measured changes no byte of what is learned.

import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { bestEpoch, isExhausted } from '../src/engine/train/stopping.ts'
import { deal, drawIntents, readQuestions, writeRows } from './banking77.ts'
import { validated } from './validated.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    out: { type: 'string' },
    method: { type: 'string', default: 'classification' },
    seeds: { type: 'string', default: '1,2,3' },
    rate: { type: 'string' },
    patience: { type: 'string', default: '5' },
    'held-out': { type: 'string', default: '20' },
    valid: { type: 'string', default: '10' },
    precision: { type: 'string', default: 'fp32' },
  },
})
const { model, data, out } = values
if (!model || !data || !out)
  throw new Error('usage: early-stopping.ts --model M --data CSV --out O')
const method = values.method === 'supervised' ? 'supervised' : 'classification'
const precision: 'fp32' | 'int8' = values.precision === 'int8' ? 'int8' : 'fp32'
await mkdir(out, { recursive: true })
const questions = await readQuestions(data)

console.log(
  '| seed | stops after epoch | best epoch | its loss | last loss | its accuracy | last accuracy |',
)
for (const seed of values.seeds.split(',').map(Number)) {
  const intents = drawIntents(questions, 10, seed)
  const parts = deal(questions, intents, seed, 4, Number(values.valid), Number(values['held-out']))
  const paths = ['train', 'valid', 'held-out'].map((name) => resolve(out, `${name}-${seed}.jsonl`))
  for (const [i, part] of parts.entries()) await writeRows(paths[i]!, part, method)
  const [training, validation, heldOut] = paths as [string, string, string]
  const rate = values.rate === undefined ? {} : { learning_rate: Number(values.rate) }
  const run = {
    model: resolve(model),
    cache: join(out, 'cache'),
    training,
    method,
    hyperparameters: { n_epochs: 20, precision, ...rate },
    seed,
  } as const
  const valid = (await validated({ ...run, validation })).epochs
  const held = (await validated({ ...run, validation: heldOut })).epochs
  const losses = valid.map(({ loss }) => loss)
  const best = bestEpoch(losses)!
  const patience = { patience: Number(values.patience), min_delta: 0 }
  const stops = losses.findIndex((_, i) => isExhausted(losses.slice(0, i + 1), patience))
  const chosen = bestEpoch(losses.slice(0, stops < 0 ? losses.length : stops + 1))!
  const percent = (x: number) => `${(100 * x).toFixed(1)} %`
  const row = [
    seed,
    stops < 0 ? 'none' : stops + 1,
    chosen + 1 === best + 1 ? best + 1 : `${chosen + 1} (of all ${best + 1})`,
    losses[chosen]!.toFixed(3),
    losses.at(-1)!.toFixed(3),
    percent(held[chosen]!.accuracy),
    percent(held.at(-1)!.accuracy),
  ]
  console.log(`| ${row.join(' | ')} |`)
}
