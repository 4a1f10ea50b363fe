// luthier train DIR: the engine alone, without a server or a database.

import { join } from 'node:path'
import { Command } from 'commander'
import { readConfig } from '../config.ts'
import { spawn } from '../engine/runtime/thread.ts'
import type { TrainEvent, TrainThreadRequest } from '../engine/train/request.ts'
import { trainFolder } from '../engine/train/to-folder.ts'
import { locateBaseModel } from '../service/models/base-models.ts'
import { integer } from './arguments.ts'
import { createProgress, duration } from './progress.ts'
import { timeLeft } from './time-left.ts'
import { hyperparametersOf, type TrainingOptions, withTrainingOptions } from './training-options.ts'

interface Options extends TrainingOptions {
  model: string
  out: string
  seed: number
}

const WORKER = new URL('../engine/train/worker.ts', import.meta.url)

export const trainCommand = () =>
  withTrainingOptions(
    new Command('train')
      .description(
        'tune a base model on a folder of rows; writes a PEFT adapter folder, or a whole model',
      )
      .argument('<folder>', 'holds train.jsonl, and valid.jsonl if there is one')
      .requiredOption('--model <name>', 'a pulled model, or the path of a model')
      .option('--out <folder>', 'the folder to write', 'adapter')
      .option('--seed <n>', 'of shuffling and initial weights', integer, 42),
  ).action(async (folder: string, options: Options) => {
    const { home, models } = readConfig(process.env)
    const request = {
      folder,
      model: await locateBaseModel(models, options.model),
      cache: join(home, 'cache', 'weights'),
      out: options.out,
      method: options.method,
      hyperparameters: hyperparametersOf(options),
      seed: options.seed,
    }
    await using thread = spawn<TrainThreadRequest, TrainEvent>(WORKER)
    await report(trainFolder(thread, request))
    console.log(`The ${options.allWeights ? 'model' : 'adapter'} is in ${options.out}`)
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
      case 'precision':
        console.log(`precision ${event.precision}: ${event.reason}`)
        break
      case 'progress':
      case 'started':
      case 'stopped':
      case 'state':
      case 'checkpoint':
      case 'evidence':
      case 'unscored':
        break
      default:
        event satisfies never
    }
}
