// One training run with what its validation file says at every epoch's end.

import { inspect } from '../src/engine/train/inspect.ts'
import { train } from '../src/engine/train/loop.ts'
import type { Hyperparameters, Plan } from '../src/engine/train/request.ts'

export interface Run {
  readonly model: string
  readonly cache: string
  readonly training: string
  readonly validation: string
  readonly method: 'classification' | 'supervised'
  readonly hyperparameters: Partial<Hyperparameters>
  readonly seed: number
}

/** `accuracy` is of labels or, of a decoder, of the completions' tokens. */
export interface Epoch {
  readonly loss: number
  readonly accuracy: number
}

/** Trains in this thread; what is not given is `auto`. */
export async function validated(
  run: Run,
): Promise<{ plan: Plan; epochs: Epoch[]; seconds: number }> {
  const { model, cache, method, seed } = run
  const request = {
    model,
    method,
    training: { path: run.training },
    validation: { path: run.validation },
  }
  const { plan } = await inspect({
    type: 'inspect',
    ...request,
    hyperparameters: {
      n_epochs: 'auto',
      batch_size: 'auto',
      learning_rate_multiplier: 'auto',
      precision: 'fp32',
      ...run.hyperparameters,
    },
  })
  if (!plan) throw new Error(`The rows of ${run.training} are not fit for training.`)
  const began = performance.now()
  const epochs: Epoch[] = []
  const { signal } = new AbortController()
  const turn = async () => ({ [Symbol.dispose]() {} })
  for await (const event of train(
    { type: 'train', ...request, cache, plan, seed },
    { signal, turn },
  ))
    if (event.type === 'checkpoint') {
      const { full_valid_loss, full_valid_accuracy, full_valid_mean_token_accuracy } = event.metrics
      const accuracy = full_valid_accuracy ?? full_valid_mean_token_accuracy
      epochs.push({ loss: full_valid_loss!, accuracy: accuracy! })
    }
  return { plan, epochs, seconds: (performance.now() - began) / 1000 }
}
