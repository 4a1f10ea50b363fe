// The options of `luthier train` that are hyperparameters: the same that a job takes, under the names of a command line.

import { type Command, InvalidArgumentError, Option } from 'commander'
import { METHOD_NAMES, type MethodName } from '../engine/train/methods/index.ts'
import type { Hyperparameters, SentLoraOptions } from '../engine/train/request.ts'
import { autoOrNumber, integer, number } from './arguments.ts'

export interface TrainingOptions {
  method: MethodName
  epochs: Hyperparameters['n_epochs']
  batchSize: Hyperparameters['batch_size']
  learningRateMultiplier: Hyperparameters['learning_rate_multiplier']
  learningRate?: number
  allWeights?: true
  rank?: number
  alpha?: number
  targetModules?: NonNullable<SentLoraOptions['target_modules']>
  dropout?: number
  rslora?: true
  dora?: true
  loraplusRatio?: number
  beta?: NonNullable<Hyperparameters['beta']>
  precision?: NonNullable<Hyperparameters['precision']>
  schedule?: NonNullable<Hyperparameters['lr_schedule']>
  warmup?: number
  weightDecay?: number
  maxGradNorm?: number
  maxLength?: number
  truncation?: NonNullable<Hyperparameters['truncation']>
}

/** Adds them to a command. */
export const withTrainingOptions = (command: Command): Command =>
  command
    .addOption(
      new Option('--method <name>', 'what is learned from the rows')
        .choices(METHOD_NAMES)
        .default('supervised'),
    )
    .option('--epochs <n>', 'times the data is seen', autoOrNumber, 'auto')
    .option('--batch-size <n>', 'examples of one optimizer step', autoOrNumber, 'auto')
    .option('--learning-rate-multiplier <x>', 'times the base rate', autoOrNumber, 'auto')
    .option('--learning-rate <x>', 'overrides the multiplier', number)
    .option('--all-weights', 'train every weight, and no adapter')
    .option('--rank <n>', 'of LoRA', integer)
    .option('--alpha <x>', 'of LoRA', number)
    .option('--target-modules <names>', 'projections, with commas, or all-linear', targetModules)
    .option('--dropout <share>', 'of what LoRA reads, below 1', partial)
    .option('--rslora', 'scale LoRA by alpha / √rank')
    .option('--dora', 'train the lengths of weights by themselves')
    .option('--loraplus-ratio <x>', 'learning rate of B as a multiple of that of A', positive)
    .option('--beta <x>', 'of dpo: how closely the model is kept to its start', autoOrNumber)
    .addOption(
      new Option('--precision <name>', 'of the frozen weights').choices(['auto', 'fp32', 'int8']),
    )
    .addOption(
      new Option('--schedule <name>', 'of the learning rate').choices([
        'linear',
        'cosine',
        'constant',
      ]),
    )
    .option('--warmup <share>', 'of all steps, 0 to 1', share)
    .option('--weight-decay <x>', 'of AdamW', number)
    .option('--max-grad-norm <x>', 'longer gradients are scaled down', positive)
    .option('--max-length <tokens>', 'the longest row', integer)
    .addOption(
      new Option('--truncation <policy>', 'of longer rows').choices(['truncate', 'drop', 'error']),
    )

/** What was said, as a job would say it. */
export function hyperparametersOf(options: TrainingOptions): Hyperparameters {
  const lora = said({
    rank: options.rank,
    alpha: options.alpha,
    target_modules: options.targetModules,
    dropout: options.dropout,
    use_rslora: options.rslora,
    use_dora: options.dora,
  })
  return {
    n_epochs: options.epochs,
    batch_size: options.batchSize,
    learning_rate_multiplier: options.learningRateMultiplier,
    ...(Object.keys(lora).length > 0 && { lora }),
    ...(options.allWeights && { adapter: 'none' as const }),
    ...said({
      learning_rate: options.learningRate,
      loraplus_lr_ratio: options.loraplusRatio,
      beta: options.beta,
      lr_schedule: options.schedule,
      precision: options.precision,
      warmup_ratio: options.warmup,
      weight_decay: options.weightDecay,
      max_grad_norm: options.maxGradNorm,
      max_sequence_length: options.maxLength,
      truncation: options.truncation,
    }),
  }
}

type Said<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Without what was left out. */
const said = <T extends object>(options: T): Said<T> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Said<T>

const targetModules = (text: string): 'all-linear' | string[] =>
  text === 'all-linear' ? text : text.split(',')

function share(text: string): number {
  const value = number(text)
  if (value >= 0 && value <= 1) return value
  throw new InvalidArgumentError('expected a number from 0 to 1')
}

function partial(text: string): number {
  const value = number(text)
  if (value >= 0 && value < 1) return value
  throw new InvalidArgumentError('expected a number from 0 to below 1')
}

function positive(text: string): number {
  const value = number(text)
  if (value > 0) return value
  throw new InvalidArgumentError('expected a number above 0')
}
