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
  /** Supervised tokens of a micro-batch; absent: all. */
  readonly supervised?: number
  /** Absent: supervised. */
  readonly method?: string
  /** Every weight is trained: they are inputs then, and nothing of the file stays mapped. */
  readonly whole?: boolean
  /** That run micro-batches at the same time; absent: 1. */
  readonly devices?: number
}

/** Memory of the process before it trains: the runtime, and what it has loaded. */
const PROCESS = 270e6
/** An encoder's blocks hold less than a decoder's: no gate, nothing rotated. */
const ENCODER_SHARE = 0.55
/**
 * Peak resident bytes of a step. How far it is from peaks that were measured, of SmolLM2-135M and all-MiniLM-L6-v2,
 * stands in docs/performance.md.
 */
export function peakMemory(input: ForecastInput): number {
  const {
    config,
    parameters,
    rows,
    length,
    keep,
    precision,
    devices = 1,
    whole: all = false,
  } = input
  const tokens = rows * length
  const supervised = Math.min(input.supervised ?? tokens, tokens)
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
  const share = config.encoder ? ENCODER_SHARE : 1
  // The reference of dpo passes the blocks without keeping them; there, and where the head learns, its logits are whole.
  const reference = input.method === 'dpo' ? whole : 0
  const copies = input.method === 'dpo' ? 5 : all ? 4 : 3
  const chunk = input.method === 'dpo' || all ? supervised : Math.min(supervised, HEAD_ROWS)
  const logits = config.encoder ? 0 : copies * chunk * config.vocab_size
  // The vector, both moments, the sum of gradients, one gradient, and, of an adapter, copies on each side of the session.
  const trained = (all ? 5.4 : 7) * parameters
  const weights = all ? 0 : weightBytes(config, precision)
  const step = tokens * share * (kept + reference) + logits
  return PROCESS + weights + 4 * (devices * step + trained)
}

/** Mapped weights that a step touches: embeddings and head in float32, in int8 the head besides; the rest twice in int8. */
function weightBytes(config: ModelConfig, precision: Precision): number {
  let bytes = 0
  const tables = /embed|lm_head|wte|wpe/
  for (const [name, dims] of requiredTensors(config))
    bytes += elements(dims) * (precision === 'fp32' ? 4 : tables.test(name) ? 5 : 2)
  return bytes
}
