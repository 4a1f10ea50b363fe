// What a step costs in a unit of its own, from shapes alone: how long a unit takes is measured (throughput.ts). Pure.

import { QUERIES } from '../models/layers.ts'
import { elements } from '../tensor.ts'
import { familyOf, type ModelConfig, requiredTensors } from '../weights/model-config.ts'
import type { Plan } from './request.ts'
import type { Workload } from './workload.ts'

/** Of the plan, all that a step's cost depends on besides its workload. */
export interface Costed extends Pick<Plan, 'keep' | 'adapter' | 'devices'> {
  readonly config: ModelConfig
  /** Elements of the trained vector. */
  readonly parameters: number
  readonly precision: 'fp32' | 'int8'
  /** Another forward pass without an adapter goes with each: dpo's. */
  readonly reference: boolean
}

/** A micro-batch as amounts of what computes differently fast, all but the last in billions. */
export interface Amounts {
  /** Multiplications of frozen products, in the step's precision. */
  readonly products: number
  /** Multiplications in float32: adapters, the head's gradient, gradients of weights. */
  readonly float: number
  readonly attention: number
  /** Numbers that are read and written between products. */
  readonly moved: number
  /** Blocks that are begun: what a run costs, however small it is. */
  readonly begun: number
}

/**
 * Weights of the amounts, so that a unit is about a billion multiplications of a frozen product in float32. Fitted to steps
 * that were measured (docs/performance.md), for what matters is how the amounts compare: the machine's own speed is measured.
 */
const WEIGHTS = {
  fp32: { products: 1, float: 1.26, attention: 1.06, moved: 27, begun: 0.06 },
  int8: { products: 0.36, float: 1.26, attention: 1.06, moved: 27, begun: 0.06 },
} as const

/** AdamW and what goes with it, of a billion elements of the trained vector. */
const UPDATE = 1475

/** A whole optimizer step, its update among it. */
export function stepCost(costed: Costed, work: Workload): number {
  const turns = Math.ceil(work.microBatches / (costed.devices ?? 1))
  return turns * microBatchCost(costed, work) + (UPDATE * costed.parameters) / 1e9
}

/** One micro-batch, forward and back. */
export const microBatchCost = (costed: Costed, work: Workload): number =>
  weigh(costed, amountsOf(costed, work, true))

/** One micro-batch forward alone. */
export const evaluationCost = (costed: Costed, work: Workload): number =>
  weigh(costed, amountsOf(costed, work, false))

const weigh = ({ precision }: Costed, amounts: Amounts): number => {
  const weights = WEIGHTS[precision]
  let sum = 0
  for (const name of Object.keys(weights) as (keyof Amounts)[]) sum += weights[name] * amounts[name]
  return sum
}

/** The amounts of one micro-batch, with its gradients or without. */
export function amountsOf(costed: Costed, work: Workload, learning: boolean): Amounts {
  const { config, parameters, keep = 'everything', reference } = costed
  const { groups, supervised } = work
  const whole = costed.adapter === 'none'
  const { hidden_size: D, intermediate_size: F, num_hidden_layers: layers, vocab_size: V } = config
  const heads = config.num_attention_heads
  const Q = heads * config.head_dim
  const tokens = groups.reduce((n, { rows, length }) => n + rows * length, 0)
  /** Pairs of a query and a key that it is compared with. */
  const pairs = groups.reduce(
    (n, { rows, length }) => n + rows * length * keysOf(config, length),
    0,
  )
  // Passes like the forward one: it, what is computed once more, and those back to the input and to the weights.
  const again = learning ? { everything: 0, products: 0, blocks: 1 }[keep] : 0
  const between = learning && keep !== 'everything' ? 1 : 0
  const forward = 1 + Number(reference)
  const backward = learning ? 1 : 0
  const linear = tokens * frozenOf(config)
  const head = config.encoder ? 0 : supervised * V * D
  const adapter = whole ? 0 : tokens * parameters
  const attended = 2 * pairs * Q * layers
  const kept = tokens * layers * (10 * D + 4 * F) + 6 * pairs * heads * layers
  const logits = config.encoder ? 0 : supervised * V
  return {
    products: (linear * (forward + again + backward) + head * forward) / 1e9,
    float:
      (adapter * (1 + again + 2 * backward) +
        head * backward +
        (whole ? (linear + head) * backward : 0)) /
      1e9,
    attention: (attended * (forward + between + 2 * backward)) / 1e9,
    moved: (kept * (forward + between + 1.5 * backward) + 4 * logits * (forward + backward)) / 1e9,
    begun: layers * (forward + again + 2 * backward),
  }
}

/** Keys that a query is compared with, a mean: decoders take queries in stretches, and compute all of a stretch's. */
export const keysOf = ({ encoder }: ModelConfig, length: number): number =>
  encoder ? length : Math.min(length, ((Math.ceil(length / QUERIES) + 1) / 2) * QUERIES)

/** Elements of the matrices of all blocks. */
export function frozenOf(config: ModelConfig): number {
  const { linear } = familyOf(config)
  let sum = 0
  for (const [name, dims] of requiredTensors(config))
    if (linear.some((layer) => name.endsWith(`.${layer}.weight`))) sum += elements(dims)
  return sum
}
