// luthier train DIR: the engine alone, without a server or a database.

import { join } from 'node:path'
import { Command, Option } from 'commander'
import { readConfig } from '../config.ts'
import { spawn } from '../engine/runtime/thread.ts'
import type { Hyperparameters, TrainEvent, TrainThreadRequest } from '../engine/train/request.ts'
import { trainFolder } from '../engine/train/to-folder.ts'
import { locateBaseModel } from '../service/models/base-models.ts'
import { autoOrNumber, integer, number } from './arguments.ts'
import { createProgress, duration } from './progress.ts'
import { timeLeft } from './time-left.ts'

interface Options {
  model: string
  out: string
  seed: number
  epochs: Hyperparameters['n_epochs']
  batchSize: Hyperparameters['batch_size']
  learningRateMultiplier: Hyperparameters['learning_rate_multiplier']
  learningRate?: number
  rank?: number
  alpha?: number
  schedule?: 'linear' | 'cosine' | 'constant'
  maxLength?: number
}

const WORKER = new URL('../engine/train/worker.ts', import.meta.url)

export const trainCommand = () =>
  new Command('train')
    .description('tune a base model on a folder of rows; writes a PEFT adapter folder')
    .argument('<folder>', 'holds train.jsonl, and valid.jsonl if there is one')
    .requiredOption('--model <name>', 'a pulled model, or the path of a model')
    .option('--out <folder>', 'the adapter folder to write', 'adapter')
    .option('--seed <n>', 'of shuffling and initial weights', integer, 42)
    .option('--epochs <n>', 'times the data is seen', autoOrNumber, 'auto')
    .option('--batch-size <n>', 'examples of one optimizer step', autoOrNumber, 'auto')
    .option('--learning-rate-multiplier <x>', 'times the base rate', autoOrNumber, 'auto')
    .option('--learning-rate <x>', 'overrides the multiplier', number)
    .option('--rank <n>', 'of LoRA', integer)
    .option('--alpha <x>', 'of LoRA', number)
    .addOption(
      new Option('--schedule <name>', 'of the learning rate').choices([
        'linear',
        'cosine',
        'constant',
      ]),
    )
    .option('--max-length <tokens>', 'longer rows are cut', integer)
    .action(async (folder: string, options: Options) => {
      const { home, models } = readConfig(process.env)
      const request = {
        folder,
        model: await locateBaseModel(models, options.model),
        cache: join(home, 'cache', 'weights'),
        out: options.out,
        hyperparameters: hyperparameters(options),
        seed: options.seed,
      }
      await using thread = spawn<TrainThreadRequest, TrainEvent>(WORKER)
      await report(trainFolder(thread, request))
      console.log(`The adapter is in ${options.out}`)
    })

const hyperparameters = (options: Options): Hyperparameters => ({
  n_epochs: options.epochs,
  batch_size: options.batchSize,
  learning_rate_multiplier: options.learningRateMultiplier,
  ...(options.learningRate !== undefined && { learning_rate: options.learningRate }),
  ...((options.rank !== undefined || options.alpha !== undefined) && {
    lora: {
      ...(options.rank !== undefined && { rank: options.rank }),
      ...(options.alpha !== undefined && { alpha: options.alpha }),
    },
  }),
  ...(options.schedule !== undefined && { lr_schedule: options.schedule }),
  ...(options.maxLength !== undefined && { max_sequence_length: options.maxLength }),
})

async function report(events: AsyncIterable<TrainEvent>) {
  const progress = createProgress(process.stderr)
  const left = timeLeft()
  for await (const event of events)
    switch (event.type) {
      case 'inspected':
        console.log(
          `${event.training.examples} rows, ${event.training.tokens} tokens, ${event.training.trained_tokens} of them learned`,
        )
        for (const warning of event.training.warnings) console.log(`warning: ${warning}`)
        for (const reason of event.plan?.reasons ?? []) console.log(reason)
        break
      case 'step': {
        const { step, total_steps, train_loss, valid_loss } = event.metrics
        const rest = left(step, total_steps)
        const validation = valid_loss === undefined ? '' : `, validation ${valid_loss.toFixed(3)}`
        progress.show(
          step / total_steps,
          `step ${step}/${total_steps}, loss ${train_loss.toFixed(3)}${validation}${rest === undefined ? '' : `, ${duration(rest)} left`}`,
        )
        break
      }
      case 'done':
        progress.end()
        console.log(`${event.step} steps, ${event.trained_tokens} tokens learned`)
        break
      case 'started':
      case 'stopped':
      case 'state':
      case 'checkpoint':
        break
      default:
        event satisfies never
    }
}
