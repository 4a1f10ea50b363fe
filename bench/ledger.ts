// How many wrong labels the ledger finds: 5 % of banking77's labels are flipped, a model is trained, and its rows are
// ordered by what was kept of their losses.
//
//     npx tsx bench/ledger.ts --model MODEL --data train.csv --out OUT [--intents 77] [--per-intent N] [--epochs 5]
//         [--seeds 1,2,3] [--method classification|supervised] [--flip 0.05]
//         [--all RATE]
//
// With `--all` every weight is trained, at that learning rate. An encoder trains by `classification`, a decoder by `supervised` on prompt and completion. Prints the recall in the
// top tenth for each ordering, and keeps the losses in OUT/ledger-<method>-<seed>.json.

import { mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { uniform } from '../src/engine/random.ts'
import { inspect } from '../src/engine/train/inspect.ts'
import { train } from '../src/engine/train/loop.ts'
import { Ledger, ORDERS } from '../src/service/jobs/ledger.ts'
import { drawIntents, readQuestions, writeRows } from './banking77.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string' },
    out: { type: 'string' },
    intents: { type: 'string', default: '77' },
    'per-intent': { type: 'string', default: '1000' },
    epochs: { type: 'string', default: '5' },
    seeds: { type: 'string', default: '1' },
    method: { type: 'string', default: 'classification' },
    flip: { type: 'string', default: '0.05' },
    all: { type: 'string' },
  },
})
const { model, data, out } = values
if (!model || !data || !out) throw new Error('usage: ledger.ts --model MODEL --data CSV --out OUT')
const method = values.method === 'supervised' ? 'supervised' : 'classification'
await mkdir(out, { recursive: true })

const all = await readQuestions(data)

for (const seed of values.seeds.split(',').map(Number)) {
  const intents = drawIntents(all, Number(values.intents), seed)
  const rows = intents.flatMap((label) =>
    all.filter((row) => row.label === label).slice(0, Number(values['per-intent'])),
  )
  const flipped = new Set<number>()
  const given = rows.map(({ text, label }, i) => {
    if (uniform(seed, 2, i) >= Number(values.flip)) return { text, label }
    flipped.add(i + 1)
    const others = intents.filter((other) => other !== label)
    return { text, label: others[Math.floor(uniform(seed, 3, i) * others.length)]! }
  })
  const path = resolve(out, `rows-${method}-${seed}.jsonl`)
  await writeRows(path, given, method)

  const request = { model: resolve(model), training: { path }, method } as const
  const { plan } = await inspect({
    type: 'inspect',
    ...request,
    hyperparameters: {
      n_epochs: Number(values.epochs),
      batch_size: 'auto',
      learning_rate_multiplier: 'auto',
      precision: 'fp32',
      ...(values.all !== undefined && {
        adapter: 'none' as const,
        learning_rate: Number(values.all),
      }),
    },
  })
  if (!plan) throw new Error('The rows are not fit for training.')
  const began = performance.now()
  const parts = []
  const { signal } = new AbortController()
  const turn = async () => ({ [Symbol.dispose]() {} })
  const cache = join(out, 'cache')
  for await (const event of train(
    { type: 'train', ...request, cache, plan, seed },
    { signal, turn },
  )) {
    if (event.type === 'state') parts.push(event.losses)
    if (event.type === 'checkpoint')
      console.log(`epoch ${event.metrics.epoch}: loss ${event.metrics.train_loss.toFixed(3)}`)
  }
  const ledger = new Ledger(parts)
  const top = Math.ceil(rows.length / 10)
  const recalls = ORDERS.map((order) => {
    const first = ledger.ranked(order).slice(0, top)
    return `${order} ${(first.filter(({ line }) => flipped.has(line)).length / flipped.size).toFixed(3)}`
  })
  const seconds = (performance.now() - began) / 1000
  console.log(
    `seed ${seed}: ${rows.length} rows, ${intents.length} intents, ${flipped.size} flipped, ${plan.n_epochs} epochs in ${seconds.toFixed(0)} s; recall in the top tenth: ${recalls.join(', ')}`,
  )
  await writeFile(
    join(out, `ledger-${method}-${seed}.json`),
    JSON.stringify({
      flipped: [...flipped],
      parts: parts.map(({ epoch, lines, losses }) => ({
        epoch,
        lines: [...lines],
        losses: [...losses],
      })),
    }),
  )
}
