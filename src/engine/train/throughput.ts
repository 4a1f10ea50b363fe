// How fast this machine trains a base: seconds for a unit of cost (cost.ts), kept beside the base's converted weights for
// each device, base and precision. It is measured where nobody knows it, and every job tells it anew.

import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Example } from '../datasets/example.ts'
import { textExample } from '../datasets/text-example.ts'
import { withInt8 } from '../models/int8.ts'
import { uniform } from '../random.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import type { Checkpoint } from '../weights/checkpoint.ts'
import { mapWeights, weightsId } from '../weights/mapped.ts'
import { type Costed, stepCost } from './cost.ts'
import { classification } from './methods/classification.ts'
import { supervised } from './methods/supervised.ts'
import { createMoments } from './optimizer.ts'
import { keptPrecision, type TrainPrecision } from './precision.ts'
import type { Plan } from './request.ts'
import { subjectOf } from './subject-of.ts'
import { createTrainer } from './trainer.ts'
import { workloadOf } from './workload.ts'

export interface Measurable {
  readonly checkpoint: Checkpoint
  /** Folder of converted weights. */
  readonly cache: string
  readonly plan: Plan
  readonly precision: TrainPrecision
}

/** Seconds for a unit of cost. */
export interface Throughput {
  /** As it was measured last. */
  readonly seconds: number
  /** What micro-batches are cut by: the same as long as it is near enough, so that equal jobs get equal plans. */
  readonly paced: number
}

/** Undefined where nobody has measured it yet. */
export async function knownThroughput(of: Measurable): Promise<Throughput | undefined> {
  try {
    const { seconds, paced = seconds } = JSON.parse(await readFile(await fileOf(of), 'utf8')) as {
      [K in keyof Throughput]?: unknown
    }
    const isSpeed = (x: unknown) => typeof x === 'number' && x > 0
    return isSpeed(seconds) && isSpeed(paced) ? ({ seconds, paced } as Throughput) : undefined
  } catch {
    return undefined // None, or one that was cut off: it is measured again.
  }
}

/** What the pace may be off from what was measured last, either way. */
const NEAR = 1.3

/** Keeps what a step of this cost took, for every later forecast. */
export async function keepThroughput(
  of: Measurable,
  took: number,
  cost: number,
): Promise<Throughput> {
  const seconds = took / cost
  const before = (await knownThroughput(of))?.paced ?? seconds
  const paced = before < NEAR * seconds && seconds < NEAR * before ? before : seconds
  const file = await fileOf(of)
  await mkdir(of.cache, { recursive: true })
  const aside = `${file}.${randomUUID()}.tmp`
  await writeFile(aside, JSON.stringify({ seconds, paced, measured_at: new Date().toISOString() }))
  await rename(aside, file)
  return { seconds, paced }
}

async function fileOf({ checkpoint, cache, plan, precision }: Measurable): Promise<string> {
  const { device = 'cpu', threads, adapter } = plan
  const what = [device, threads, precision, ...(adapter === 'none' ? ['all'] : [])].join('-')
  return join(cache, `${await weightsId(checkpoint)}.${what}.throughput.json`)
}

/** Rows of the step that is timed; half of a decoder's tokens are learned. */
const DECODER = { rows: 1, row_length: 256 }
const ENCODER = { rows: 8, row_length: 64 }
const RUNS = 2

/** Times a small step of the base, after one that is not timed, and keeps the result. Its rate is 0: nothing is learned. */
export async function measureThroughput(of: Measurable, turn: TakeTurn): Promise<Throughput> {
  const { checkpoint, cache, precision } = of
  const { config } = checkpoint
  const mapped = await mapWeights(checkpoint, cache)
  const weights =
    precision === 'int8' ? await withInt8(mapped, cache, await openTokenizer(checkpoint)) : mapped
  const given = config.encoder ? ENCODER : DECODER
  const row_length = Math.min(given.row_length, config.max_position_embeddings)
  const { keep: _, long_rows: __, devices: ___, ...rest } = of.plan
  const plan: Plan = {
    ...rest,
    rows: given.rows,
    row_length,
    batch_size: given.rows,
    facts: { task: 'single', labels: ['a', 'b'] },
  }
  const examples = Array.from({ length: given.rows }, (_, row) => {
    const tokens = Int32Array.from({ length: row_length }, (_, i) =>
      Math.floor(uniform(0, row, i) * config.vocab_size),
    )
    if (config.encoder)
      return textExample(
        row + 1,
        [{ ids: [...tokens], types: tokens.map(() => 0) as unknown as number[], truncated: false }],
        [row % 2],
      )
    return { line: row + 1, tokens, weights: Float32Array.from(tokens, (_, i) => i % 2) }
  })
  const subject = subjectOf(config.encoder ? classification : supervised, {
    checkpoint,
    weights,
    plan,
    seed: 0,
    initial: undefined,
    examples,
  })
  const { parameters } = subject
  await using trainer = await createTrainer(
    { step: 0, adapter: await subject.start(), moments: createMoments(parameters) },
    {
      objective: subject.objective,
      threads: plan.threads,
      device: plan.device,
      weightDecay: 0,
      maxGradNorm: 1,
      turn,
    },
  )
  await trainer.step(examples, 0)
  let fastest = Number.POSITIVE_INFINITY
  for (let run = 0; run < RUNS; run++) {
    const start = performance.now()
    await trainer.step(examples, 0)
    fastest = Math.min(fastest, (performance.now() - start) / 1000)
  }
  const work = workloadOf(plan, config, sizesOf(examples))
  const costed = { config, parameters, precision: keptPrecision(precision), reference: false }
  return keepThroughput(of, fastest, stepCost({ ...plan, ...costed }, work))
}

/** Steps that are looked at; the first of a session is slow and not among them. */
const WATCHED = 3

/**
 * Learns the speed from a job's own first steps: to be told of each what it took, until `done`. The fastest counts, for
 * others compute on the device in between.
 */
export function watchSteps(of: Measurable, costed: Costed) {
  let steps = 0
  let least = Number.POSITIVE_INFINITY
  const { config } = of.checkpoint
  return {
    get done() {
      return steps > WATCHED
    },
    async step(examples: readonly Example[], seconds: number): Promise<void> {
      if (steps++ === 0) return
      const plan = { ...of.plan, batch_size: examples.length }
      const cost = stepCost(costed, workloadOf(plan, config, sizesOf(examples)))
      least = Math.min(least, seconds / cost)
      if (steps > WATCHED) await keepThroughput(of, least, 1)
    },
  }
}

/** What a workload is made of. */
export const sizesOf = (examples: readonly Example[]) => ({
  lengths: examples.map(({ tokens }) => tokens.length),
  trained: examples.map(({ weights }) => weights.reduce((n, w) => n + Number(w > 0), 0)),
})
