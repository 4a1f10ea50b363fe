// Our side of the banking77 comparison: trains from the files of banking77_data.py, then answers every held-out row
// through the inference engine, and sets the result beside what banking77_peft.py wrote.
//
//   npx tsx bench/peers/banking77.ts MODEL OUT [--seeds 1,2,3] [--limit N] [--compare] [--precision int8] [--curves]
//
// --compare runs nothing: it takes our side from OUT/luthier.json, for a peer that ended later.
// --curves asks nothing: losses alone, that of held-out rows among them, go to OUT/luthier-<precision>-curves-<seeds>.json.
// MODEL is the folder that the PEFT side was given, so that both have the same float32 weights.
// --precision int8 trains on the int8 copy; answers are computed in float32 either way.
// Writes OUT/luthier.json, or luthier-int8.json, with the fields of OUT/peft.json. Without the latter no comparison is printed.

import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { Example } from '../../src/engine/datasets/example.ts'
import { Generator } from '../../src/engine/infer/generate.ts'
import type { Target } from '../../src/engine/infer/request.ts'
import { adapterFromFlat, flatFromAdapter, loraLayout } from '../../src/engine/models/adapters.ts'
import { withInt8 } from '../../src/engine/models/int8.ts'
import type { TakeTurn } from '../../src/engine/runtime/thread.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { supervised } from '../../src/engine/train/methods/supervised.ts'
import { createMoments } from '../../src/engine/train/optimizer.ts'
import { chooseShape } from '../../src/engine/train/row-shape.ts'
import { createTrainer } from '../../src/engine/train/trainer.ts'
import { readAdapter, writeAdapter, writeAdapterConfig } from '../../src/engine/weights/adapter.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { mapWeights } from '../../src/engine/weights/mapped.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    limit: { type: 'string' },
    compare: { type: 'boolean' },
    precision: { type: 'string', default: 'fp32' },
    curves: { type: 'boolean' },
  },
})
const [model, out] = positionals.map((p) => resolve(p))
if (!model || !out) throw new Error('usage: banking77.ts MODEL OUT [--seeds 1,2,3] [--limit N]')

interface SharedPlan {
  rank: number
  alpha: number
  target_modules: string[]
  batch_size: number
  learning_rates: number[]
  weight_decay: number
  max_grad_norm: number
  max_new_tokens: number
}

interface SeedResult {
  seed: number
  accuracy: number
  right: number[]
  losses: number[]
  train_seconds: number
  eval_seconds: number
  valid_loss?: number
  /** Of an adapter trained in int8, computed in float32. */
  exact_valid_loss?: number | undefined
}

const turn: TakeTurn = async () => ({ [Symbol.dispose]() {} })
const threads = availableParallelism()
const cache = join(out, 'cache')
await mkdir(cache, { recursive: true })
const generator = new Generator({ threads })

async function runSeed(seed: number): Promise<SeedResult> {
  const folder = join(out!, `seed-${seed}`)
  const json = async <T>(name: string) =>
    JSON.parse(await readFile(join(folder, name), 'utf8')) as T
  const plan = await json<SharedPlan>('plan.json')
  const batches = await json<number[][]>('batches.json')
  const encoded = async (name: string) =>
    (await json<{ tokens: number[]; weights: number[] }[]>(name)).map(
      ({ tokens, weights }, i): Example => ({
        line: i + 1,
        tokens: Int32Array.from(tokens),
        weights: Float32Array.from(weights),
      }),
    )
  const examples = await encoded('tokens.json')
  const valid = values.curves ? await encoded('valid-tokens.json') : []

  // The first adapter is given; reading it wants PEFT's two files.
  const checkpoint = await openCheckpoint(model!)
  const plain = await mapWeights(checkpoint, cache)
  const int8 = values.precision === 'int8'
  const weights = int8 ? await withInt8(plain, cache, await openTokenizer(checkpoint)) : plain
  const layout = loraLayout(weights, plan)
  const adapterFolder = join(folder, 'luthier')
  await mkdir(adapterFolder, { recursive: true })
  const adapterFile = join(adapterFolder, 'adapter_model.safetensors')
  const empty = adapterFromFlat(layout, new Float32Array(layout.parameters), checkpoint.id)
  await writeFile(join(adapterFolder, 'adapter_config.json'), writeAdapterConfig(empty.config))
  await writeFile(adapterFile, await readFile(join(folder, 'init.safetensors')))
  const adapter = flatFromAdapter(layout, await readAdapter(adapterFile))

  const started = performance.now()
  const losses: number[] = []
  let valid_loss: number | undefined
  let exact_valid_loss: number | undefined
  const trainerOn = (on: typeof plain) =>
    createTrainer(
      { step: 0, adapter, moments: createMoments(layout.parameters) },
      {
        objective: supervised.objective({
          weights: on,
          layout,
          shape: chooseShape(
            examples.map((e) => e.tokens.length),
            plan.batch_size,
            { longest: Math.max(...valid.map((e) => e.tokens.length), 0) },
          ),
        }),
        threads,
        weightDecay: plan.weight_decay,
        maxGradNorm: plan.max_grad_norm,
        turn,
      },
    )
  {
    await using trainer = await trainerOn(weights)
    for (const [i, batch] of batches.entries()) {
      const { loss } = await trainer.step(
        batch.map((j) => examples[j]!),
        plan.learning_rates[i]!,
      )
      losses.push(loss)
      if (i % 10 === 0) console.log(`  step ${i + 1}/${batches.length} loss ${loss.toFixed(4)}`)
    }
    if (values.curves) valid_loss = (await trainer.evaluate(valid))!.loss
  }
  if (values.curves && int8) {
    await using exact = await trainerOn(plain)
    exact_valid_loss = (await exact.evaluate(valid))!.loss
    console.log(`seed ${seed}: the same adapter in float32 ${exact_valid_loss.toFixed(4)}`)
  }
  if (valid_loss !== undefined) {
    console.log(`seed ${seed}: validation loss ${valid_loss.toFixed(4)}`)
    const train_seconds = (performance.now() - started) / 1000
    return {
      seed,
      accuracy: 0,
      right: [],
      losses,
      train_seconds,
      eval_seconds: 0,
      valid_loss,
      exact_valid_loss,
    }
  }
  const trained = performance.now()
  await writeFile(adapterFile, writeAdapter(adapterFromFlat(layout, adapter, checkpoint.id)))

  const intents = (await readFile(join(folder, 'heldout.jsonl'), 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as { intent: string }).intent)
  const prompts = await json<number[][]>('heldout-tokens.json')
  const stride = values.limit ? Math.max(1, Math.floor(prompts.length / Number(values.limit))) : 1
  const asked = prompts.map((_, i) => i).filter((i) => i % stride === 0)
  const right = await judge(
    { model: model!, cache, adapter: adapterFile },
    asked.map((i) => prompts[i]!),
    asked.map((i) => intents[i]!),
    plan.max_new_tokens,
  )
  const result = {
    seed,
    accuracy: mean(right),
    right,
    losses,
    train_seconds: (trained - started) / 1000,
    eval_seconds: (performance.now() - trained) / 1000,
  }
  console.log(
    `seed ${seed}: luthier ${percent(result.accuracy)} of ${right.length} held-out rows` +
      ` (training ${result.train_seconds.toFixed(1)} s, answers ${result.eval_seconds.toFixed(1)} s)`,
  )
  return result
}

/** Greedy answers, sixteen requests under way at a time; 1 where the text is the intent's name. */
async function judge(
  target: Target,
  prompts: number[][],
  intents: string[],
  max_tokens: number,
): Promise<number[]> {
  const right = new Array<number>(prompts.length).fill(0)
  let next = 0
  const ask = async () => {
    for (let i = next++; i < prompts.length; i = next++) {
      let text = ''
      const events = generator.handle(
        {
          type: 'generate',
          target,
          prompt: { tokens: prompts[i]! },
          max_tokens,
          stop: [],
          n: 1,
          sampling: { temperature: 0, top_p: 1, seed: 0 },
        },
        { signal: new AbortController().signal, turn },
      )
      for await (const event of events) if (event.type === 'delta') text += event.text
      right[i] = text.trim() === intents[i] ? 1 : 0
    }
  }
  await Promise.all(Array.from({ length: 16 }, ask))
  return right
}

const mean = (xs: readonly number[]) => xs.reduce((a, b) => a + b, 0) / xs.length
const percent = (x: number) => `${(100 * x).toFixed(2)} %`

const seeds: SeedResult[] = []
const suffix = (values.precision === 'int8' ? '-int8' : '') + (values.limit ? '-trial' : '')
const ours = join(out, `luthier${suffix}.json`)
if (values.compare)
  seeds.push(...(JSON.parse(await readFile(ours, 'utf8')) as { seeds: SeedResult[] }).seeds)
else for (const seed of values.seeds.split(',').map(Number)) seeds.push(await runSeed(seed))
if (values.curves) {
  const name = `luthier-${values.precision}-curves-${values.seeds.replaceAll(',', '-')}.json`
  await writeFile(join(out, name), JSON.stringify(seeds))
  process.exit()
}
const report = { model, threads, mean_accuracy: mean(seeds.map((s) => s.accuracy)), seeds }
await writeFile(ours, JSON.stringify(report))

const peerFile = join(out, 'peft.json')
if (!values.limit && existsSync(peerFile)) {
  const peer = JSON.parse(await readFile(peerFile, 'utf8')) as {
    mean_accuracy: number
    base_accuracy: number
    base_told_accuracy: number
    seeds: { seed: number; right: number[]; losses: number[] }[]
  }
  // Paired by row: the same questions on both sides, so their difficulty cancels.
  const differences = seeds.flatMap((ours) => {
    const theirs = peer.seeds.find((s) => s.seed === ours.seed)
    return theirs ? ours.right.map((r, i) => r - theirs.right[i]!) : []
  })
  const d = mean(differences)
  const error = Math.sqrt(
    mean(differences.map((x) => (x - d) ** 2)) / Math.max(1, differences.length - 1),
  )
  console.log(`luthier ${percent(report.mean_accuracy)}, peft ${percent(peer.mean_accuracy)}`)
  console.log(
    `difference ${(100 * d).toFixed(2)} points, paired 95 % interval ${(100 * (d - 1.96 * error)).toFixed(2)} … ${(100 * (d + 1.96 * error)).toFixed(2)}`,
  )
  console.log(
    `untuned base ${percent(peer.base_accuracy)}, told the names ${percent(peer.base_told_accuracy)}`,
  )
  for (const ours of seeds) {
    const theirs = peer.seeds.find((s) => s.seed === ours.seed)
    if (!theirs) continue
    const worst = Math.max(...ours.losses.map((l, i) => Math.abs(l - theirs.losses[i]!) / l))
    console.log(`seed ${ours.seed}: losses differ by at most ${worst.toExponential(1)}, relative`)
  }
}
