// Next-token cross-entropy over the tokens that a row marks as learned: chats, completions.

import { rowEncoder } from '../../datasets/encode.ts'
import type { Example } from '../../datasets/example.ts'
import { inOrder } from '../in-order.ts'
import { microBatches, supervisedTokens, totalWeight } from '../micro-batch.ts'
import { buildStep, type StepShape } from '../step.ts'
import { wholeSubject } from '../whole-subject.ts'
import type { AdapterMethod, Feeds, Objective } from './method.ts'

export const supervised: AdapterMethod = {
  name: 'supervised',

  encoder: (options) => rowEncoder(options),

  /**
   * 5e-4 · (2000 / hidden size)^0.775, ten times the rate for all weights, after "LoRA Without Regret"
   * (Schulman et al., 2025). Tried here on SmolLM2-135M and stories260k only.
   */
  baseLearningRate: ({ hidden_size }, { adapter }) =>
    (adapter === 'none' ? 5e-5 : 5e-4) * (2000 / hidden_size) ** 0.775,

  objective: ({ weights, layout, shape }) => ({
    graphs: buildStep(weights, layout, shape),
    measure: measureIn(shape),
  }),

  whole: (setup) => wholeSubject(measureIn, setup),

  columns: [
    { name: 'train_loss', metric: 'train_loss' },
    { name: 'train_accuracy', metric: 'train_mean_token_accuracy' },
    { name: 'valid_loss', metric: 'valid_loss' },
    { name: 'valid_mean_token_accuracy', metric: 'valid_mean_token_accuracy' },
  ],
}

const measureIn =
  (shape: StepShape): Objective['measure'] =>
  async (examples, { train, evaluate, width }) => {
    const run = train ?? evaluate
    const tokens = supervisedTokens(examples)
    let loss = 0
    let correct = 0
    for await (const [, outputs] of inOrder(learned(examples, shape), run, width)) {
      loss += Number(outputs.loss!.data[0])
      correct += Number(outputs.correct!.data[0])
    }
    return { loss, tokens, scores: { mean_token_accuracy: tokens === 0 ? 0 : correct / tokens } }
  }

/** Micro-batches in which there is something to learn. */
function* learned(examples: readonly Example[], shape: StepShape): Generator<Feeds> {
  for (const { feeds } of microBatches(examples, shape, totalWeight(examples)))
    if (feeds.index!.dims[0] !== 0) yield feeds
}
