// Next-token cross-entropy over the tokens that a row marks as learned: chats, completions.

import { rowEncoder } from '../../datasets/encode.ts'
import type { Example } from '../../datasets/example.ts'
import { inOrder } from '../in-order.ts'
import { type MicroBatch, microBatches, supervisedTokens, totalWeight } from '../micro-batch.ts'
import { buildStep, type StepShape } from '../step.ts'
import { wholeSubject } from '../whole-subject.ts'
import type { AdapterMethod, Objective } from './method.ts'

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
    const places = new Map(examples.map((example, i) => [example, i]))
    const losses = new Float32Array(examples.length)
    const answers = inOrder(learned(examples, shape), ({ feeds }) => run(feeds), width)
    for await (const [batch, outputs] of answers) {
      loss += Number(outputs.loss!.data[0])
      correct += Number(outputs.correct!.data[0])
      const own = outputs.losses!.data as Float32Array
      let at = 0
      for (const example of batch.examples) {
        let [sum, weight] = [0, 0]
        for (const w of example.weights) {
          if (w === 0) continue
          sum += w * own[at++]!
          weight += w
        }
        losses[places.get(example)!] = weight === 0 ? 0 : sum / weight
      }
    }
    const mean_token_accuracy = tokens === 0 ? 0 : correct / tokens
    return { loss, losses, tokens, scores: { mean_token_accuracy } }
  }

/** Micro-batches in which there is something to learn. */
function* learned(examples: readonly Example[], shape: StepShape): Generator<MicroBatch> {
  for (const batch of microBatches(examples, shape, totalWeight(examples)))
    if (batch.feeds.index!.dims[0] !== 0) yield batch
}
