// Two experts of ten banking77 intents each, disjoint, made one: the accuracy on both halves of every way of merging,
// beside each expert's and that of one model trained on both.
//
//   npx tsx bench/experts.ts MODEL CSV OUT [--rows 20] [--held-out 10] [--epochs 3] [--budget 24] [--seed 1]
//
// MODEL is a decoder. What is trained in OUT stays there, and is not trained again. An answer is right where the greedy
// text equals the intent's name.

import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Generator } from '../src/engine/infer/generate.ts'
import { parseRequested } from '../src/engine/merge/requested.ts'
import { candidateText, runRequested } from '../src/engine/merge/run.ts'
import { spawn } from '../src/engine/runtime/thread.ts'
import { openTokenizer } from '../src/engine/tokenizer/tokenizer.ts'
import type { TrainEvent, TrainThreadRequest } from '../src/engine/train/request.ts'
import { trainFolder } from '../src/engine/train/to-folder.ts'
import { openCheckpoint } from '../src/engine/weights/checkpoint.ts'
import { deal, drawIntents, type Question, readQuestions, writeRows } from './banking77.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: 'string', default: '20' },
    'held-out': { type: 'string', default: '10' },
    valid: { type: 'string', default: '4' },
    epochs: { type: 'string', default: '3' },
    budget: { type: 'string', default: '24' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
})
const [model, csv, out] = positionals.map((path) => resolve(path))
if (!model || !csv || !out) throw new Error('usage: experts.ts MODEL CSV OUT')
const seed = Number(values.seed)
const cache = join(out, 'cache')
await mkdir(cache, { recursive: true })

const questions = await readQuestions(csv)
const intents = drawIntents(questions, 20, seed)
const halves = [intents.slice(0, 10), intents.slice(10)]
const counts = [values.rows, values.valid, values['held-out']].map(Number)
/** Of each half the rows to train on, to choose by, and held out. */
const parts = halves.map((half) => deal(questions, half, seed, ...counts))
const sets: Readonly<Record<string, readonly number[]>> = { one: [0], two: [1], both: [0, 1] }

const adapterOf = (name: string) => join(out, name, 'adapter_model.safetensors')

for (const [name, of] of Object.entries(sets)) {
  const folder = join(out, `${name}-rows`)
  await mkdir(folder, { recursive: true })
  const all = (part: number) => of.flatMap((half) => parts[half]![part]!)
  await writeRows(join(folder, 'train.jsonl'), all(0), 'supervised')
  await writeRows(join(out, `${name}-valid.jsonl`), all(1), 'supervised')
  if (existsSync(adapterOf(name)) || (values.only && values.only !== name)) continue
  await using thread = spawn<TrainThreadRequest, TrainEvent>(
    new URL('../src/engine/train/worker.ts', import.meta.url),
  )
  const began = performance.now()
  for await (const event of trainFolder(thread, {
    folder,
    model,
    cache,
    out: join(out, `${name}-trained`),
    method: 'supervised',
    hyperparameters: {
      n_epochs: Number(values.epochs),
      batch_size: 16,
      learning_rate_multiplier: 'auto',
      learning_rate: 1e-3,
      precision: 'int8',
      lora: { rank: 8, alpha: 16 },
    },
    seed,
  }))
    if (event.type === 'step' && event.metrics.step % 5 === 0)
      console.log(name, JSON.stringify(event.metrics))
  await mkdir(join(out, name), { recursive: true })
  // Only what was trained to its end has the name.
  for (const file of ['adapter_config.json', 'adapter_model.safetensors'])
    await writeFile(join(out, name, file), await readFile(join(out, `${name}-trained`, file)))
  console.log(`${name}: trained in ${((performance.now() - began) / 1000).toFixed(0)} s`)
}
if (values.only) process.exit(0)

/** What is made of the two, each as `luthier merge` takes it. */
const pair = { adapters: ['one', 'two'], weights: [1, 1] }
const merges: Readonly<Record<string, object>> = {
  cat: { ...pair, combination_type: 'cat' },
  ties: { ...pair, combination_type: 'ties', density: 0.5 },
  ties_svd: { ...pair, combination_type: 'ties_svd', density: 0.5, svd_rank: 16 },
  dare_ties: { ...pair, combination_type: 'dare_ties', density: 0.5 },
  dare_ties_svd: { ...pair, combination_type: 'dare_ties_svd', density: 0.5, svd_rank: 16 },
  'search (cat)': {
    ...pair,
    combination_type: 'cat',
    base_model: 'base',
    search: { validation_file: 'both', budget: Number(values.budget) },
  },
  'search (ties)': {
    ...pair,
    combination_type: 'ties',
    density: 0.5,
    base_model: 'base',
    search: { validation_file: 'both', budget: Number(values.budget), density: [0.2, 1] },
  },
}
const models = {
  one: { path: model, adapter: adapterOf('one') },
  two: { path: model, adapter: adapterOf('two') },
  base: { path: model },
}
const search = { rows: join(out, 'both-valid.jsonl'), cache }
for (const [name, text] of Object.entries(merges)) {
  if (existsSync(adapterOf(name))) continue
  const began = performance.now()
  const request = { models, out: join(out, name), threads: availableParallelism(), search }
  for await (const event of runRequested(parseRequested(text), request))
    if (event.type === 'candidate') console.log(candidateText(event))
  console.log(`${name}: made in ${((performance.now() - began) / 1000).toFixed(0)} s`)
}

const generator = new Generator({ threads: availableParallelism() })
const tokenizer = await openTokenizer(await openCheckpoint(model))

/** The share of right answers; sixteen requests are under way at a time. */
async function accuracy(name: string | undefined, asked: readonly Question[]): Promise<number> {
  const target = { model: model!, cache, ...(name !== undefined && { adapter: adapterOf(name) }) }
  let [next, right] = [0, 0]
  const ask = async () => {
    for (let i = next++; i < asked.length; i = next++) {
      let text = ''
      const events = generator.handle(
        {
          type: 'generate',
          target,
          prompt: { tokens: [...tokenizer.encode(`Question: ${asked[i]!.text}\nIntent:`)] },
          max_tokens: 16,
          stop: [],
          n: 1,
          sampling: { temperature: 0, top_p: 1, seed: 0 },
        },
        { signal: new AbortController().signal, turn: async () => ({ [Symbol.dispose]() {} }) },
      )
      for await (const event of events) if (event.type === 'delta') text += event.text
      if (text.trim() === asked[i]!.label.replaceAll('_', ' ')) right++
    }
  }
  await Promise.all(Array.from({ length: 16 }, ask))
  return right / asked.length
}

const percent = (x: number) => `${(100 * x).toFixed(1)} %`
console.log('| model | first half | second half | both |\n| --- | --- | --- | --- |')
for (const name of [undefined, 'one', 'two', 'both', ...Object.keys(merges)]) {
  const [first, second] = [await accuracy(name, parts[0]![2]!), await accuracy(name, parts[1]![2]!)]
  const row = [name ?? 'base', percent(first), percent(second), percent((first + second) / 2)]
  console.log(`| ${row.join(' | ')} |`)
}
process.exit(0)
