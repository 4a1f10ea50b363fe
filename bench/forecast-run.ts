// One configuration of forecast.ts in a process of its own: what is forecast of it, then some steps of it, measured.
// With a second argument, `measure`, the base's speed is measured and kept, and nothing else.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from '../src/engine/train/inspect.ts'
import { train } from '../src/engine/train/loop.ts'
import type { Plan } from '../src/engine/train/request.ts'
import type { Configuration, Ran } from './forecast.ts'
import { memory } from './measure.ts'

const WORDS = 'the card was lost when my house and old friend came to ask for a new one'.split(' ')
const words = (count: number, from: number) =>
  Array.from({ length: Math.max(1, count) }, (_, i) => WORDS[(from + i * i) % WORDS.length]).join(
    ' ',
  )

/** A row of about `length` tokens, of which a share is learned. */
function rowOf({ method, length, learned }: Configuration, i: number): object {
  const answer = Math.round(length * learned)
  switch (method) {
    case 'supervised':
      if (learned === 1) return { text: words(length - 3, i) }
      return { prompt: words(length - answer, i), completion: ` ${words(answer - 3, i + 1)}` }
    case 'dpo': {
      const asked = words(length - answer - 30, i)
      const said = (from: number) => [{ role: 'assistant', content: words(answer - 3, from) }]
      return {
        input: { messages: [{ role: 'user', content: asked }] },
        preferred_output: said(i),
        non_preferred_output: said(i + 5),
      }
    }
    case 'classification':
      return { text: words(length - 3, i), label: `label ${i % 20}` }
    default:
      throw new Error(`no rows for ${method}`)
  }
}

const configuration = JSON.parse(process.argv[2] ?? '') as Configuration
const { model, cache, method, batch, steps, precision, adapter, rank, keep } = configuration
/** Writes the rows to a folder, and goes through a job on them. */
async function run(folder: string): Promise<void> {
  const path = join(folder, 'train.jsonl')
  const rows = Array.from({ length: batch * steps }, (_, i) => rowOf(configuration, i))
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  const data = { model, training: { path }, method }
  const request = {
    type: 'inspect' as const,
    ...data,
    cache,
    hyperparameters: {
      n_epochs: 1,
      batch_size: batch,
      learning_rate_multiplier: 1,
      max_sequence_length: 8192,
      precision,
      ...(adapter === 'none' ? { adapter } : { lora: { rank: rank ?? 8 } }),
    },
    ...(configuration.memory && { memory: configuration.memory }),
  }
  const { plan, forecast } = await inspect(request)
  if (process.argv[3] === 'measure') return void (await inspect({ ...request, measure: true }))
  if (!plan || !forecast) throw new Error('The rows are not fit for training.')
  const chosen: Plan = keep ? { ...plan, keep } : plan
  const ends: number[] = []
  const context = {
    signal: new AbortController().signal,
    turn: async () => ({ [Symbol.dispose]() {} }),
  }
  const training = { type: 'train' as const, ...data, cache, plan: chosen, seed: 1 }
  for await (const event of train(training, context))
    if (event.type === 'step') ends.push(performance.now())
  const seconds = ends
    .slice(1)
    .map((end, i) => (end - ends[i]!) / 1000)
    .sort((a, b) => a - b)
  const { rows: count, row_length, long_rows: long } = chosen
  const ran: Ran = {
    shape: `${count}×${row_length}${long ? ` + ${long.rows}×${long.length}` : ''}`,
    keep: chosen.keep ?? 'everything',
    megabytes: memory()[0]!.value,
    seconds: seconds[seconds.length >> 1]!,
    forecast,
  }
  process.stdout.write(JSON.stringify(ran))
}

const folder = await mkdtemp(join(tmpdir(), 'luthier-forecast-'))
try {
  await run(folder)
} finally {
  await rm(folder, { recursive: true })
}
