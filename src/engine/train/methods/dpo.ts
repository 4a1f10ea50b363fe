// Direct preference optimization (arXiv 2305.18290): the better answer becomes likelier than the other, measured
// against the model that training started from.

import type { Example } from '../../datasets/example.ts'
import { type PreferenceExample, preferenceEncoder } from '../../datasets/preference-example.ts'
import { float32 } from '../../tensor.ts'
import { inOrder } from '../in-order.ts'
import { supervisedTokens } from '../micro-batch.ts'
import { preferenceBatches } from '../preference-batch.ts'
import { buildPreferenceStep } from '../preference-step.ts'
import type { AdapterMethod, Feeds } from './method.ts'
import { supervised } from './supervised.ts'

/** As the paper and TRL have it; smaller lets the model go further from where it started. */
const DEFAULT_BETA = 0.1

export const dpo: AdapterMethod = {
  name: 'dpo',

  encoder: (options) => preferenceEncoder(options),

  /** A tenth of supervised training's: what is learned from pairs is spoiled by large steps. */
  baseLearningRate: (config, hyperparameters) =>
    supervised.baseLearningRate(config, hyperparameters) / 10,

  defaults: { beta: 'auto' },

  settle({ beta = 'auto' }, reasons) {
    if (beta !== 'auto') return { beta }
    reasons.push(`beta ${DEFAULT_BETA}: how closely the model is kept to the one it starts from`)
    return { beta: DEFAULT_BETA }
  },

  objective({ weights, layout, shape, plan, initial }) {
    const beta = plan?.beta ?? DEFAULT_BETA
    let reference: Promise<Feeds> | undefined
    const referenceFeeds = async (): Promise<Feeds> => {
      if (!initial) return {}
      return { reference: float32([layout.parameters], await initial()) }
    }
    return {
      graphs: buildPreferenceStep(weights, layout, shape, {
        beta,
        reference: initial !== undefined,
      }),

      async measure(examples, { train, evaluate, width }) {
        const run = train ?? evaluate
        reference ??= referenceFeeds()
        const fixed = await reference
        const pairs = examples.map(asPair)
        const sums = { loss: 0, correct: 0, chosen: 0, rejected: 0, better: 0 }
        const batches = preferenceBatches(pairs, shape)
        const places = new Map(pairs.map((pair, i) => [pair, i]))
        const losses = new Float32Array(pairs.length)
        const answers = inOrder(batches, ({ feeds }) => run({ ...feeds, ...fixed }), width)
        for await (const [batch, outputs] of answers) {
          const [chosen, rejected] = [outputs.preferred_rewards!.data, outputs.other_rewards!.data]
          sums.loss += Number(outputs.loss!.data[0])
          sums.correct += Number(outputs.correct!.data[0])
          for (let i = 0; i < chosen.length; i++) {
            sums.chosen += Number(chosen[i])
            sums.rejected += Number(rejected[i])
            sums.better += Number(chosen[i]! > rejected[i]!)
            const margin = Number(chosen[i]) - Number(rejected[i])
            // ln(1 + e⁻ˣ), and no overflow where x is far below 0
            losses[places.get(batch.pairs[i]!)!] =
              Math.log1p(Math.exp(-Math.abs(margin))) + Math.max(-margin, 0)
          }
        }
        const preferred = pairs.reduce(
          (sum, { weights, preferred }) =>
            sum + weights.subarray(0, preferred).reduce((n, w) => n + (w > 0 ? 1 : 0), 0),
          0,
        )
        const mean = (sum: number) => sum / pairs.length
        return {
          loss: sums.loss,
          losses,
          tokens: supervisedTokens(examples),
          scores: {
            mean_token_accuracy: sums.correct / preferred,
            rewards_chosen: mean(sums.chosen),
            rewards_rejected: mean(sums.rejected),
            rewards_margin: mean(sums.chosen - sums.rejected),
            rewards_accuracy: mean(sums.better),
          },
        }
      },
    }
  },

  columns: [
    ...supervised.columns,
    ...['rewards_chosen', 'rewards_rejected', 'rewards_margin', 'rewards_accuracy'].map((name) => ({
      name,
      metric: `train_${name}`,
    })),
  ],
}

function asPair(example: Example): PreferenceExample {
  if ('preferred' in example) return example as PreferenceExample
  throw new Error(`Line ${example.line} is no pair of answers.`)
}
