// The step of direct preference optimization (DPO, arXiv 2305.18290) as graphs: policy and reference in one. What the
// reference gives is not kept between epochs: its last bits depend on the neighbours in a row, and a job that goes on
// from a state must come to the same bytes.

import { gradients } from '../graph/autodiff.ts'
import { input, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { bindAdapter, flatten, type LoraLayout } from '../models/adapters.ts'
import { createDropout, type Dropout } from '../models/dropout.ts'
import { architectureOf } from '../models/index.ts'
import { alwaysTrue, kept } from '../models/keep.ts'
import { packedAttention } from '../models/layers.ts'
import { type Lora, weightsOf } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { startingGradient } from './loss-scale.ts'
import type { StepGraphs, StepShape } from './step.ts'

export interface PreferenceStepOptions {
  readonly beta: number
  /** Whether the reference has an adapter too, of the same layout: the input `reference` [P]. */
  readonly reference: boolean
}

/**
 * Inputs: `tokens`, `positions`, `segments` [B, T] int64; `index` and `targets` [S] int64, as in the supervised step;
 * `preferred` and `other` [pairs, S], 1 where a supervised token belongs to that text of the pair; `shares` [pairs, 1],
 * a pair's weight in the loss; `adapter` [P], and `reference` [P] where there is one. Outputs: `loss` = Σ share · −ln
 * σ(r_preferred − r_other), the rewards r = β · ln π/π_ref of each pair as `preferred_rewards` and `other_rewards`
 * [pairs, 1], `correct` tokens of the preferred texts, and `gradient` [P].
 */
export function buildPreferenceStep(
  mapped: MappedWeights,
  layout: LoraLayout,
  { rows: B, length: T, keep = 'everything' }: StepShape,
  { beta, reference }: PreferenceStepOptions,
): StepGraphs {
  const { config } = mapped
  const architecture = architectureOf(config)
  const tokens = input('tokens', 'int64', [B, T])
  const positions = input('positions', 'int64', [B, T])
  const segments = input('segments', 'int64', [B, T])
  const index = input('index', 'int64', ['S'])
  const targets = input('targets', 'int64', ['S'])
  const preferred = input('preferred', 'float32', ['pairs', 'S'])
  const other = input('other', 'float32', ['pairs', 'S'])
  const shares = input('shares', 'float32', ['pairs', 1])
  const adapter = input('adapter', 'float32', [layout.parameters])

  const base = weightsOf(mapped)
  /** ln p of every supervised token under the base with these adapters, [S, 1]. */
  const logProbs = (loras: ReadonlyMap<string, Lora>, learned: Value[] = []) => {
    const model = base.adapted(loras, kept({ keep, positions, learned }))
    const attend = packedAttention(config, { rows: B, length: T, positions, segments })
    const flat = { ids: op.reshape(tokens, [B * T]), positions: op.reshape(positions, [B * T]) }
    const hidden = architecture.hidden(flat, model, config, attend) // [N, D]
    return op.headLogProbs(
      op.pick(hidden, index),
      architecture.head(model, config).get('weight'),
      targets,
      alwaysTrue(positions),
    )
  }
  const frozen = reference
    ? bindAdapter(layout, input('reference', 'float32', [layout.parameters])).loras
    : new Map<string, Lora>()
  const from = logProbs(frozen).logProbs

  const compare = (drop?: Dropout['drop']) => {
    const { loras, parts } = bindAdapter(layout, adapter, drop)
    const policy = logProbs(loras, [...parts])
    const gained = op.scale(op.sub(policy.logProbs, from), beta) // [S, 1]
    const preferred_rewards = op.gemm(preferred, gained) // [pairs, 1]
    const other_rewards = op.gemm(other, gained)
    // −ln σ(x) = ln(1 + e⁻ˣ)
    const losses = op.softplus(op.sub(other_rewards, preferred_rewards))
    const loss = op.sumAll(op.mul(losses, shares))
    const correct = op.sumAll(op.gemm(preferred, policy.hits))
    return { parts, outputs: { loss, preferred_rewards, other_rewards, correct } }
  }
  const rate = layout.config.dropout ?? 0
  const dropout = rate > 0 ? createDropout(rate) : undefined
  const { parts, outputs } = compare(dropout?.drop)
  const gradient = flatten(gradients(outputs.loss, parts, startingGradient(mapped)), layout)
  return {
    train: { ...outputs, gradient },
    evaluate: dropout ? compare().outputs : outputs,
    dropout,
    prepack: mapped.int8 !== undefined,
  }
}
