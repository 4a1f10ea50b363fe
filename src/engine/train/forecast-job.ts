// What a planned job will take, told before its first step: seconds a step and in all, from the step's own graph and
// what this machine was measured to do, and the peak of its memory.

import { packExamples } from '../datasets/pack.ts'
import { packTexts } from '../datasets/text-batches.ts'
import { elements } from '../tensor.ts'
import type { Checkpoint, MappedTensor, MappedWeights } from '../weights/checkpoint.ts'
import type { MappedInt8, MappedInt8Block } from '../weights/int8.ts'
import { type ModelConfig, optionalTensors, requiredTensors } from '../weights/model-config.ts'
import { peakMemory } from './forecast.ts'
import { workOf } from './graph-work.ts'
import type { Method } from './methods/method.ts'
import type { Precision } from './precision.ts'
import type { Forecast, Plan } from './request.ts'
import type { Subject } from './subject.ts'
import { subjectOf } from './subject-of.ts'
import type { Throughput } from './throughput.ts'

/** AdamW in this thread: seconds for one element, measured with 11 and 135 million of them. */
const UPDATE_SECONDS = 7e-9
/** A step reaches this share of what its operators reach by themselves in caches of their own (docs/performance.md). */
const EFFICIENCY = 0.74

export interface ForecastJobInput {
  readonly method: Method
  readonly config: ModelConfig
  readonly plan: Plan
  /** Tokens of every training example. */
  readonly lengths: ArrayLike<number>
  /** Supervised tokens of the whole file. */
  readonly trained_tokens: number
  readonly throughput: Throughput
}

/** Pure. Where the precision is still to be tried, the faster one is taken. Validation is not counted. */
export function forecastJob(input: ForecastJobInput): Forecast {
  const { plan, lengths, trained_tokens, method, config, throughput } = input
  const runs = runsOf(plan, lengths, config.encoder !== undefined)
  const examples = Math.max(1, lengths.length)
  const batch = Math.min(plan.batch_size, examples)
  const supervised = Math.max(1, Math.round((trained_tokens / examples) * (batch / runs.of_step)))
  const pairs = Math.max(1, Math.round(batch / runs.of_step))
  const tried: Precision[] = plan.precision === 'auto' ? ['int8', 'fp32'] : [plan.precision]
  const forecasts = tried.map((precision) => {
    const step = forecastStep({ method, config, plan, precision, supervised, pairs, throughput })
    const step_seconds = runs.in_turn * step.run_seconds + step.update_seconds
    return {
      precision,
      step_seconds,
      seconds: step_seconds * plan.total_steps,
      peak_memory: step.peak_memory,
    }
  })
  return forecasts.reduce((a, b) => (b.step_seconds < a.step_seconds ? b : a))
}

export interface ForecastStepInput
  extends Pick<ForecastJobInput, 'method' | 'config' | 'plan' | 'throughput'> {
  readonly precision: Precision
  /** Of one micro-batch. */
  readonly supervised: number
  readonly pairs: number
}

/** One run of the training graph, and what follows all runs of a step. */
export function forecastStep(input: ForecastStepInput) {
  const { method, config, plan, precision, supervised, pairs, throughput } = input
  const subject = describedSubject(method, config, plan, precision)
  const work = workOf(subject.objective.graphs.train, { supervised, pairs })
  const kinds = Object.keys(work) as (keyof typeof work)[]
  return {
    run_seconds: kinds.reduce((sum, kind) => sum + work[kind] / throughput[kind], 0) / EFFICIENCY,
    update_seconds: UPDATE_SECONDS * subject.parameters,
    peak_memory: peakMemory({
      config,
      parameters: subject.parameters,
      rows: plan.rows,
      length: plan.row_length,
      keep: plan.keep ?? 'everything',
      precision,
      supervised,
      method: method.name,
      whole: plan.adapter === 'none',
      ...(plan.devices !== undefined && { devices: plan.devices }),
    }),
  }
}

/** Batches of the file that are looked at. */
const SAMPLE = 64

/** Micro-batches of a step on average, and how many of them one device computes. */
function runsOf(
  { rows, row_length, long_rows, batch_size, devices = 1 }: Plan,
  lengths: ArrayLike<number>,
  encoder: boolean,
) {
  let batches = 0
  let all = 0
  let in_turn = 0
  for (let i = 0; i < lengths.length && batches < SAMPLE; i += batch_size, batches++) {
    const batch: number[] = Array.prototype.slice.call(lengths, i, i + batch_size)
    const shape = { rows, length: row_length, ...(long_rows && { long: long_rows }) }
    const runs = encoder
      ? packTexts(batch, shape).length
      : Math.ceil(packExamples(batch, row_length).length / rows)
    all += runs
    in_turn += Math.ceil(runs / devices)
  }
  const mean = (sum: number) => sum / Math.max(1, batches)
  return { of_step: mean(all), in_turn: mean(in_turn) }
}

/** What the job trains, over weights of which only the shapes are known: nothing is read. */
export function describedSubject(
  method: Method,
  config: ModelConfig,
  plan: Plan,
  precision: Precision,
): Subject {
  const shapes = new Map([...requiredTensors(config), ...optionalTensors(config)])
  const tensors = new Map([...shapes].map(([name, dims]) => [name, described(name, dims)]))
  const plain: MappedWeights = { id: 'described', config, tensors }
  const weights = precision === 'int8' ? { ...plain, int8: new DescribedInt8(tensors) } : plain
  const checkpoint: Checkpoint = {
    id: 'described',
    path: '',
    format: 'huggingface',
    config,
    tensors: new Map(),
    chat_template: undefined,
  }
  return subjectOf(method, { checkpoint, weights, plan, seed: 0, initial: undefined, examples: [] })
}

const described = (name: string, dims: readonly number[]): MappedTensor => ({
  name,
  dims,
  file: '',
  offset: 0,
  bytes: 4 * elements(dims),
})

/** Has every block that is asked for but the first, as the copy that is made of a model. */
class DescribedInt8 extends Map<string, MappedInt8Block> implements MappedInt8 {
  readonly #tensors: ReadonlyMap<string, MappedTensor>
  #first: string | undefined

  constructor(tensors: ReadonlyMap<string, MappedTensor>) {
    super()
    this.#tensors = tensors
  }

  override get(key: string): MappedInt8Block | undefined {
    this.#first ??= key
    if (key === this.#first) return undefined
    const members = key.split('|').map((path) => this.#tensors.get(`${path}.weight`))
    const inner = members[0]?.dims[1]
    if (inner === undefined || members.includes(undefined)) return undefined
    const outer = members.reduce((sum, tensor) => sum + tensor!.dims[0]!, 0)
    return {
      smoothing: described(`${key}.smoothing`, [inner]),
      forward: described(`${key}.forward`, [inner, outer]),
      forward_scale: described(`${key}.forward_scale`, [outer]),
      backward: described(`${key}.backward`, [outer, inner]),
      backward_scale: described(`${key}.backward_scale`, [inner]),
    }
  }
}
