// Our side of the MiniLM comparison: trains on the files of minilm_data.py with the hyperparameters of minilm_hf.py, then
// classifies the held-out rows as serving does.
//
//     npx tsx bench/peers/minilm.ts --model MODEL --out OUT --mode lora|all [--seeds 1,2,3] [--threads 2] [--epochs 10]
//         [--precision auto|fp32|int8] [--steps N]
//
// Writes OUT/luthier-<mode>.json: threads, seeds: [{seed, precision, accuracy, macro_f1, epoch_seconds, losses}].
// With `--steps` it stops early and evaluates nothing: a trial.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Encoders } from '../../src/engine/infer/encoders.ts'
import { inspect } from '../../src/engine/train/inspect.ts'
import { train } from '../../src/engine/train/loop.ts'
import { ClassScores } from '../../src/engine/train/methods/class-scores.ts'
import type { Precision } from '../../src/engine/train/precision.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    out: { type: 'string' },
    mode: { type: 'string', default: 'lora' },
    seeds: { type: 'string', default: '1,2,3' },
    threads: { type: 'string', default: '2' },
    epochs: { type: 'string', default: '10' },
    precision: { type: 'string', default: 'auto' },
    steps: { type: 'string' },
  },
})
const { out, mode } = values
if (!values.model || !out || (mode !== 'lora' && mode !== 'all'))
  throw new Error('usage: minilm.ts --model MODEL --out OUT --mode lora|all')
const model = resolve(values.model)
const cache = resolve(out, 'cache')
const threads = Number(values.threads)
const limit = values.steps === undefined ? undefined : Number(values.steps)
const turn = async () => ({ [Symbol.dispose]() {} })

const seeds = []
for (const seed of values.seeds.split(',').map(Number)) seeds.push(await runSeed(seed))
const name = `luthier-${mode}${limit === undefined ? '' : '-trial'}.json`
await writeFile(join(out, name), JSON.stringify({ mode, threads, seeds }))

async function runSeed(seed: number) {
  const folder = resolve(out!, `seed-${seed}`)
  const data = {
    model,
    training: { path: join(folder, 'train.jsonl') },
    method: 'classification' as const,
  }
  const { plan } = await inspect({
    type: 'inspect',
    ...data,
    hyperparameters: {
      n_epochs: Number(values.epochs),
      batch_size: 32,
      learning_rate_multiplier: 1,
      precision: values.precision as Precision | 'auto',
      ...(mode === 'all' && { adapter: 'none' as const }),
    },
  })
  if (!plan) throw new Error('The rows are not fit for training.')
  const request = { type: 'train' as const, ...data, cache, plan: { ...plan, threads }, seed }

  const stop = new AbortController()
  const losses: number[] = []
  const epoch_seconds: number[] = []
  let precision: string = plan.precision
  let since = performance.now()
  let tuned: { adapter: Uint8Array; adapter_config: string } | undefined
  for await (const event of train(request, { signal: stop.signal, turn }))
    switch (event.type) {
      case 'precision':
        precision = event.precision
        console.log(event.reason)
        break
      case 'started':
        since = performance.now()
        break
      case 'step': {
        const { step, train_loss } = event.metrics
        losses.push(train_loss)
        if (step !== limit) break
        const each = (performance.now() - since) / step
        console.log(
          `seed ${seed} ${precision}: ${step} steps, ${each.toFixed(0)} ms each, loss ${train_loss.toFixed(3)}`,
        )
        stop.abort()
        break
      }
      case 'checkpoint':
        epoch_seconds.push(Number(((performance.now() - since) / 1000).toFixed(2)))
        console.log(
          `seed ${seed} ${precision}: epoch of ${epoch_seconds.at(-1)} s, loss ${losses.at(-1)?.toFixed(3)}`,
        )
        tuned = event
        since = performance.now()
        break
    }
  if (!tuned) return { seed, precision, losses }

  const adapter = join(folder, `luthier-${mode}`, 'adapter_model.safetensors')
  await mkdir(join(adapter, '..'), { recursive: true })
  await writeFile(adapter, tuned.adapter)
  await writeFile(join(adapter, '..', 'adapter_config.json'), tuned.adapter_config)
  const told = await judge(adapter, join(folder, 'valid.jsonl'))
  console.log(
    `seed ${seed}: accuracy ${(100 * told.accuracy).toFixed(2)} %, macro-F1 ${told.macro_f1.toFixed(3)}`,
  )
  return { seed, precision, ...told, epoch_seconds, losses }
}

async function judge(adapter: string, file: string) {
  const rows = (await readFile(file, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { text: string; label: string })
  const encoders = new Encoders(threads)
  const { results } = await encoders.encode(
    {
      type: 'encode',
      target: { model, cache, adapter },
      task: 'classification',
      input: rows.map(({ text }) => text),
    },
    { signal: new AbortController().signal, turn },
  )
  const scores = new ClassScores()
  for (const [i, result] of results.entries()) {
    if (result.type !== 'single') throw new Error('The model does not tell one label a text.')
    const best = result.scores.reduce((a, b) => (b.score > a.score ? b : a))
    scores.add([rows[i]!.label], [best.label])
  }
  await encoders.clear()
  return { accuracy: scores.accuracy, macro_f1: scores.macroF1 }
}
