// Everything that is chosen once for a job: hyperparameters as numbers, with the reason for each that was `auto`,
// and the static shape of a step. Pure: lengths and wishes in, a plan out.

import { invalidRequest } from '../../errors.ts'
import { type TextShape, tokensOf } from '../datasets/text-batches.ts'
import { KEEPS, type Keep } from '../models/keep.ts'
import { type Compute, capabilitiesOf } from '../runtime/device.ts'
import { elements } from '../tensor.ts'
import { familyOf, type ModelConfig, requiredTensors } from '../weights/model-config.ts'
import { peakMemory } from './memory.ts'
import type { Facts, Method } from './methods/method.ts'
import { microStepForecast, type Pace } from './pace.ts'
import type { Hyperparameters, LoraOptions, Plan } from './request.ts'
import { chooseShape } from './row-shape.ts'
import type { Patience } from './stopping.ts'
import { chooseTextShape } from './text-shape.ts'
import { workloadOf } from './workload.ts'

/** Longer rows are cut unless the job asks for more: attention's memory grows with the square. */
const DEFAULT_SEQUENCE_LENGTH = 1024

export interface PlanInput {
  readonly method: Pick<Method, 'name' | 'baseLearningRate' | 'settle'>
  readonly facts?: Facts | undefined
  readonly hyperparameters: Hyperparameters
  readonly config: ModelConfig
  /** Tokens of every training example, already cut to `sequenceLimit`. */
  readonly lengths: ArrayLike<number>
  /** How many of each are learned; absent: all. */
  readonly trained?: ArrayLike<number>
  /** How many different tokens occur; absent: all that there are. */
  readonly distinct?: number
  /** Tokens of the longest validation example. */
  readonly longestValidation: number
  /** Of each device. */
  readonly compute: Compute
  /** Bytes that training may take. */
  readonly memory: number
  /** What a micro-batch should take at most, by forecast: others wait for it. Absent: they do not. */
  readonly pace?: Pace | undefined
}

/** The longest example that is trained whole, in tokens. */
export const sequenceLimit = (hyperparameters: Hyperparameters, config: ModelConfig): number =>
  Math.min(
    hyperparameters.max_sequence_length ?? DEFAULT_SEQUENCE_LENGTH,
    config.max_position_embeddings,
  )

/** Resolves every `auto`. The same input gives the same plan. */
export function resolvePlan(input: PlanInput): Plan {
  const { hyperparameters: h, config, lengths, compute } = input
  const devices = h.data_parallel ?? 1
  const reasons: string[] = []
  const examples = lengths.length

  const sized: string[] = []
  const wished = h.batch_size === 'auto' ? autoBatchSize(examples, sized) : h.batch_size
  const batch_size = Math.min(wished, examples)
  const n_epochs =
    h.n_epochs === 'auto' ? autoEpochs(examples, batch_size, config, reasons) : h.n_epochs
  reasons.push(...sized)
  const multiplier = h.learning_rate_multiplier === 'auto' ? 1 : h.learning_rate_multiplier
  const base = input.method.baseLearningRate(config, h)
  if (h.learning_rate_multiplier === 'auto' && h.learning_rate === undefined)
    reasons.push(
      `learning_rate_multiplier 1: the base rate ${base.toPrecision(3)} for ${h.adapter === 'none' ? 'all weights' : 'LoRA'} on a hidden size of ${config.hidden_size}`,
    )

  const early_stopping = patienceOf(h, n_epochs, reasons)
  const own = input.method.settle?.(h, reasons)
  const total_steps = Math.ceil(examples / batch_size) * n_epochs
  const warmup_steps = Math.min(total_steps, Math.ceil(total_steps * (h.warmup_ratio ?? 0.05)))
  const lora = loraOptions(input, reasons)
  const whole = h.adapter === 'none'
  const took =
    input.pace &&
    microStepForecast(input.pace, {
      config,
      batch_size,
      sizes: { lengths, trained: input.trained ?? lengths },
      parameters: trainedParameters(config, whole ? undefined : lora, input.distinct),
      precision: whole ? 'fp32' : h.precision,
      adapter: whole ? 'none' : undefined,
      reference: input.method.name === 'dpo',
    })
  const most = input.pace?.seconds ?? Number.POSITIVE_INFINITY
  const brief = took && ((shape: TextShape) => took(shape) <= most)
  const options = { longest: input.longestValidation, devices, brief }
  const shape: TextShape = config.encoder
    ? chooseTextShape(config, lengths, batch_size, options)
    : chooseShape(lengths, batch_size, options)
  if (took)
    reasons.push(
      `micro-batches of ${tokensOf(shape)} tokens: about ${Math.round(1000 * took(shape))} ms each, for answers wait until one is over`,
    )
  const keep = choosableKeep(input, { ...shape, batch_size, lora }, reasons)
  return {
    n_epochs,
    batch_size,
    learning_rate_multiplier: multiplier,
    learning_rate: h.learning_rate ?? base * multiplier,
    lora,
    ...(h.adapter === 'none' && { adapter: 'none' as const }),
    ...(h.loraplus_lr_ratio !== undefined && { loraplus_lr_ratio: h.loraplus_lr_ratio }),
    lr_schedule: h.lr_schedule ?? 'linear',
    warmup_steps,
    weight_decay: h.weight_decay ?? 0.01,
    max_grad_norm: h.max_grad_norm ?? 1,
    total_steps,
    max_sequence_length: sequenceLimit(h, config),
    truncation: h.truncation ?? 'truncate',
    row_length: shape.length,
    rows: shape.rows,
    ...(keep !== 'everything' && { keep }),
    ...(shape.long && { long_rows: shape.long }),
    ...compute,
    ...(devices > 1 && { devices }),
    precision: choosablePrecision(input, reasons),
    ...(early_stopping && { early_stopping }),
    ...own,
    ...(input.facts && { facts: input.facts }),
    reasons,
  }
}

/** Over small files losses fall in waves: two epochs without a gain ended five of six runs too early (docs/overfitting.md). */
const DEFAULT_PATIENCE = 5

function patienceOf(
  { early_stopping }: Hyperparameters,
  n_epochs: number,
  reasons: string[],
): Patience | undefined {
  if (!early_stopping) return undefined
  const { patience = DEFAULT_PATIENCE, min_delta = 0, metric } = early_stopping
  const gained = metric === 'eval_score' ? "raised the eval's score" : 'lowered the validation loss'
  reasons.push(
    `early_stopping: of ${n_epochs} epochs none more is trained once ${patience} in a row have not ${gained} by more than ${min_delta}`,
  )
  return { patience, min_delta, ...(metric === 'eval_score' && { metric }) }
}

/** What the forecast may be wrong by (docs/performance.md). */
const MEMORY_MARGIN = 1.15

/** As much as fits, for what is not kept costs time. Encoders and models trained whole keep everything. */
function choosableKeep(
  input: PlanInput,
  shape: TextShape & { batch_size: number; lora: LoraOptions },
  reasons: string[],
): Keep {
  const { method, config, hyperparameters, memory, lengths, trained = lengths } = input
  const { rows, length, long: long_rows, batch_size, lora } = shape
  const { precision, adapter, data_parallel: devices } = hyperparameters
  const whole = adapter === 'none'
  const needed = (keep: Keep, longest: number, whole: boolean) => {
    const cut = { rows, row_length: Math.min(length, longest), batch_size }
    const shorter = (sizes: ArrayLike<number>) =>
      Array.from({ length: Math.min(sizes.length, 64 * batch_size) }, (_, i) =>
        Math.min(sizes[i]!, longest),
      )
    const sizes = { lengths: shorter(lengths), trained: shorter(trained) }
    const long = long_rows && { ...long_rows, length: Math.min(long_rows.length, longest) }
    return (
      MEMORY_MARGIN *
      peakMemory(
        {
          config,
          keep,
          devices,
          parameters: trainedParameters(config, whole ? undefined : lora, input.distinct),
          precision: precision === 'int8' && !whole ? 'int8' : 'fp32',
          whole,
          reference: method.name === 'dpo',
        },
        workloadOf({ ...cut, ...(long && { long_rows: long }) }, config, sizes),
      )
    )
  }
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`
  const longest = Math.max(length, long_rows?.length ?? 0)
  const choices: readonly Keep[] = config.encoder || whole ? ['everything'] : KEEPS
  for (const keep of choices) {
    if (needed(keep, longest, whole) > memory) continue
    if (keep !== 'everything')
      reasons.push(
        `memory: ${gigabytes(memory)} are free and keeping everything would take ${gigabytes(needed('everything', longest, whole))}, so ${keep === 'blocks' ? 'whole blocks are' : 'what lies between products is'} computed twice`,
      )
    return keep
  }
  const least = choices.at(-1)!
  const hyper = `method.${method.name}.hyperparameters`
  const refused = (what: string, advice: string, param: string) =>
    invalidRequest(
      `${what} need about ${gigabytes(needed(least, longest, whole))} of memory, and ${gigabytes(memory)} are free. ${advice}`,
      { param: `${hyper}.${param}`, code: 'insufficient_memory' },
    )
  const grain = config.encoder ? 32 : 64
  let fits = Math.ceil(longest / grain) * grain - grain
  while (fits > 0 && needed(least, fits, whole) > memory) fits -= grain
  // Of a pair both texts lie in one row.
  if (fits > 0)
    throw refused(
      `Rows of ${longest} tokens`,
      `With max_sequence_length ${method.name === 'dpo' ? fits / 2 : fits} it would fit.`,
      'max_sequence_length',
    )
  if (whole && needed(config.encoder ? 'everything' : 'blocks', longest, false) <= memory)
    throw refused('All weights', 'With an adapter (adapter: lora) it would fit.', 'adapter')
  throw refused(
    `Rows of ${longest} tokens`,
    'No length of rows would fit; choose a smaller model.',
    'max_sequence_length',
  )
}

/** Weights below which a product is over before int8 has gained anything, and a micro-batch before anybody has waited. */
const SMALL_MODEL = 20_000_000

export const isSmall = (config: ModelConfig): boolean =>
  [...requiredTensors(config).values()].reduce((sum, d) => sum + elements(d), 0) < SMALL_MODEL

function choosablePrecision(
  { method, hyperparameters, config, compute }: PlanInput,
  reasons: string[],
): Plan['precision'] {
  const { precision = 'auto', adapter } = hyperparameters
  if (adapter === 'none') {
    if (precision === 'auto') reasons.push('precision fp32: no weight is frozen')
    return 'fp32'
  }
  const { precisions } = capabilitiesOf(compute.device)
  if (precision !== 'auto' && !precisions.includes(precision))
    throw invalidRequest(`${precision} is not computed on ${compute.device}.`, {
      param: `method.${method.name}.hyperparameters.precision`,
      code: 'unsupported_value',
    })
  if (precision !== 'auto') return precision
  if (!isSmall(config)) return 'auto'
  reasons.push(`precision fp32: the model is too small to be faster in ${precisions.at(-1)}`)
  return 'fp32'
}

/**
 * Three passes; more over a small file, so that it is seen 100 times in all; fewer over a very large one. An encoder's
 * head starts from nothing and needs updates rather than passes: with fewer than 120 its loss was still falling fast.
 */
function autoEpochs(
  examples: number,
  batchSize: number,
  config: ModelConfig,
  reasons: string[],
): number {
  const epochs =
    examples * 3 < 100
      ? Math.min(25, Math.ceil(100 / examples))
      : examples * 3 > 25_000
        ? Math.max(1, Math.floor(25_000 / examples))
        : 3
  const updates = Math.ceil(examples / batchSize)
  const least = config.encoder ? Math.min(25, Math.ceil(LEAST_HEAD_UPDATES / updates)) : 1
  reasons.push(
    least > epochs
      ? `n_epochs ${least}: ${least * updates} updates, for a head that starts from nothing needs ${LEAST_HEAD_UPDATES}`
      : `n_epochs ${epochs}: ${examples} examples, seen 100 to 25,000 times in all`,
  )
  return Math.max(epochs, least)
}

const LEAST_HEAD_UPDATES = 120

/** About 30 updates a pass over a small file; larger batches only where there are examples enough for them. */
function autoBatchSize(examples: number, reasons: string[]): number {
  const size = examples < 64 ? 4 : examples < 1024 ? 8 : examples < 8192 ? 16 : 32
  reasons.push(`batch_size ${size}: ${Math.ceil(examples / size)} updates an epoch`)
  return size
}

/**
 * Elements of what is trained: an adapter's, or of every weight; of an encoder's words only those that occur. A head that
 * comes to an encoder is left out.
 */
export function trainedParameters(
  config: ModelConfig,
  lora: Pick<LoraOptions, 'rank' | 'target_modules'> | undefined,
  distinct = Number.POSITIVE_INFINITY,
): number {
  if (lora) return lora.rank * parametersOfRank(config, lora.target_modules)
  let sum = 0
  for (const [name, dims] of requiredTensors(config)) {
    const [rows = 0] = dims
    const occurring = config.encoder && name.endsWith('word_embeddings.weight')
    sum += elements(dims) * (occurring ? Math.min(1, distinct / rows) : 1)
  }
  return Math.round(sum)
}

function sumOf(numbers: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < numbers.length; i++) sum += numbers[i]!
  return sum
}

/** What an adapter of rank 1 on these layers trains. */
export const parametersOfRank = (config: ModelConfig, targets: readonly string[]): number =>
  [...requiredTensors(config)].reduce((sum, [name, [out = 0, inner = 0]]) => {
    const targeted = targets.some((target) => name.endsWith(`.${target}.weight`))
    return targeted ? sum + out + inner : sum
  }, 0)

/**
 * A parameter for each thing that is learned, token or label: below that the adapter's room limits what it can hold
 * ("LoRA Without Regret", section on capacity); above it more rank was no gain (docs/overfitting.md).
 */
function autoRank(
  { config, hyperparameters, lengths, trained = lengths }: PlanInput,
  targets: readonly string[],
  reasons: string[],
): number {
  const each = parametersOfRank(config, targets)
  const learned = config.encoder ? lengths.length : sumOf(trained)
  let rank = 8
  while (rank < 64 && rank * each < learned) rank *= 2
  if (hyperparameters.adapter !== 'none')
    reasons.push(
      `rank ${rank}: ${rank * each} parameters for ${learned} ${config.encoder ? 'rows' : 'tokens'} to learn`,
    )
  return rank
}

/**
 * Adapters on all linear layers of a block, as "LoRA Without Regret" and PEFT's `all-linear` have it. With rsLoRA
 * ranks are compared at one alpha, so there it does not grow with the rank.
 */
function loraOptions(input: PlanInput, reasons: string[]): LoraOptions {
  const { method, hyperparameters, config } = input
  const { lora = {} } = hyperparameters
  const { target_modules = 'all-linear', use_rslora = false } = lora
  const { linear } = familyOf(config)
  const targets = target_modules === 'all-linear' ? linear : target_modules
  const unknown = targets.find((name) => !linear.includes(name))
  if (unknown !== undefined)
    throw invalidRequest(
      `The model has no linear layers '${unknown}'; it has ${linear.join(', ')}.`,
      {
        param: `method.${method.name}.hyperparameters.lora.target_modules`,
        code: 'invalid_value',
      },
    )
  const wished = lora.rank ?? 'auto'
  const rank = wished === 'auto' ? autoRank(input, targets, reasons) : wished
  return {
    rank,
    alpha: lora.alpha ?? (use_rslora ? 16 : 2 * rank),
    target_modules: [...targets],
    dropout: lora.dropout ?? 0,
    use_rslora,
    use_dora: lora.use_dora ?? false,
  }
}
