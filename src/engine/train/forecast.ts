// How much memory a step will take, reckoned from shapes alone: so that what is kept of it can be chosen beforehand.

import type { Keep } from '../models/keep.ts'
import { QUERIES } from '../models/layers.ts'
import { elements } from '../tensor.ts'
import { type ModelConfig, requiredTensors } from '../weights/model-config.ts'
import type { Precision } from './precision.ts'
import { HEAD_ROWS } from './step.ts'

export interface ForecastInput {
  readonly config: ModelConfig
  /** Elements of the trained vector. */
  readonly parameters: number
  readonly rows: number
  readonly length: number
  readonly keep: Keep
  readonly precision: Precision
  /** That run micro-batches at the same time; absent: 1. */
  readonly devices?: number
}

/** Memory of the process before it trains: the runtime, and what it has loaded. */
const PROCESS = 230e6
/**
 * Peak resident bytes of a step of a decoder with adapters. How far it is from peaks that were measured, all of
 * SmolLM2-135M, stands in docs/performance.md.
 */
export function peakMemory(input: ForecastInput): number {
  const { config, parameters, rows, length, keep, precision, devices = 1 } = input
  const tokens = rows * length
  const layers = config.num_hidden_layers
  const D = config.hidden_size
  const F = config.intermediate_size
  const Q = config.num_attention_heads * config.head_dim
  const KV = config.num_key_value_heads * config.head_dim
  // Keys that a query is compared with on average, all of a stretch's.
  const stretches = Math.ceil(length / QUERIES)
  const seen = Math.min(length, ((stretches + 1) / 2) * QUERIES)
  const scores = config.num_attention_heads * seen

  // Floats of one token in one block: what products and norms read, what lies between, gradients that wait for their
  // turn. The factors are fitted to measured peaks, for the runtime reuses some memory and holds some twice.
  const read = 4 * D + 2 * Q + 2 * KV + 3 * F
  const waiting = 0.6 * (Q + 2 * KV + 2 * D + 2 * F)
  const whole = 0.85 * (read + 2 * F) + 2.5 * scores
  const kept = {
    everything: layers * whole,
    products: layers * (read + waiting) + scores + 2 * F,
    blocks: layers * 2 * D + 3.5 * whole,
  }[keep]
  const logits = 3 * Math.min(tokens, HEAD_ROWS) * config.vocab_size
  // Adapter, both moments, the sum of gradients, one gradient, and a copy of each side of the session.
  const trained = 7 * parameters
  return (
    PROCESS + weightBytes(config, precision) + 4 * (devices * (tokens * kept + logits) + trained)
  )
}

/** Mapped weights that a step touches: the embeddings and the head in float32, the rest in its precision, twice in int8. */
function weightBytes(config: ModelConfig, precision: Precision): number {
  let bytes = 0
  const tables = /embed|lm_head|wte|wpe/
  for (const [name, dims] of requiredTensors(config))
    bytes += elements(dims) * (tables.test(name) || precision === 'fp32' ? 4 : 2)
  return bytes
}
