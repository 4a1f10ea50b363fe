// How much memory a step will take, reckoned from shapes alone: so that what is kept of it can be chosen beforehand.

import type { Keep } from '../models/keep.ts'
import { elements } from '../tensor.ts'
import { type ModelConfig, requiredTensors } from '../weights/model-config.ts'
import { keysOf } from './cost.ts'
import type { Precision } from './precision.ts'
import { HEAD_ROWS } from './step.ts'
import type { Workload } from './workload.ts'

export interface MemoryInput {
  readonly config: ModelConfig
  /** Elements of the trained vector. */
  readonly parameters: number
  readonly keep: Keep
  readonly precision: Precision
  /** All weights are trained, and no adapter. */
  readonly whole: boolean
  /** A second forward pass goes with each: dpo's. */
  readonly reference: boolean
  /** That run micro-batches at the same time; absent: 1. */
  readonly devices?: number | undefined
}

/** Memory of the process before it trains: the runtime, and what it has loaded. */
const PROCESS = 265e6
/** Of a session: the nodes of a block, there a second time where a part of it is computed twice. */
const NODES = 4.5e6
/**
 * Of a supervised token's logits with what is made of them, how many times V lie about; and of how many tokens beyond the
 * head's first chunk so large a share still does.
 */
const HEAD = {
  fp32: { copies: 3, later: 768, share: 0.7 },
  int8: { copies: 2.25, later: 256, share: 0.45 },
} as const

/**
 * Peak resident bytes of the process that trains. Factors are fitted to measured peaks, for the runtime reuses some memory
 * and holds some twice; how far from others it is stands in docs/performance.md.
 */
export function peakMemory(input: MemoryInput, work: Workload): number {
  const { config, parameters, keep, precision, whole, devices = 1 } = input
  const tokens = work.groups.reduce((n, { rows, length }) => n + rows * length, 0)
  const layers = config.num_hidden_layers
  const D = config.hidden_size
  const F = config.intermediate_size
  const Q = config.num_attention_heads * config.head_dim
  const KV = config.num_key_value_heads * config.head_dim
  const pairs = work.groups.reduce(
    (n, { rows, length }) => n + rows * length * keysOf(config, length),
    0,
  )
  const scores = (config.num_attention_heads * pairs) / tokens

  // Floats of one token in one block: what products and norms read, what lies between, gradients that wait for their turn.
  const read = 4 * D + 2 * Q + 2 * KV + 3 * F
  const waiting = 0.6 * (Q + 2 * KV + 2 * D + 2 * F)
  const all = config.encoder ? 0.85 * read + 1.5 * scores : read + 1.5 * scores
  const kept = {
    everything: layers * all,
    products: layers * (read + waiting) + scores + 2 * F,
    blocks: layers * 2 * D + (precision === 'int8' ? 4 : 3.2) * all,
  }[keep]
  const nodes = keep === 'everything' ? 0 : NODES * layers
  const run = tokens * kept + headFloats(input, work.mostSupervised)
  const trained = (whole ? WHOLE_COPIES : ADAPTER_COPIES) * parameters
  const weights = whole ? 0 : weightBytes(config, precision)
  return Math.round(PROCESS + weights + 4 * (devices * run + trained) + devices * nodes)
}

/** Copies of the trained vector: it, both moments, gradients, a state that is kept, and what the session holds. */
const ADAPTER_COPIES = 7
const WHOLE_COPIES = 9.2

/** Logits with what is made of them, of so many supervised tokens: in chunks, but for dpo and where the head learns. */
function headFloats(
  { config, precision, whole, reference }: MemoryInput,
  supervised: number,
): number {
  const { vocab_size } = config
  if (config.encoder) return 0
  if (reference) return 7 * supervised * vocab_size
  if (whole) return 4 * supervised * vocab_size
  const first = Math.min(supervised, HEAD_ROWS)
  const { copies, later, share } = HEAD[precision]
  return copies * (first + share * Math.min(supervised - first, later)) * vocab_size
}

/**
 * Weights that a step touches: of embeddings the rows that occur, of the head all, in int8 in three copies, of the rest two. Of
 * an encoder's table only the rows of words that occur are, which are few.
 */
function weightBytes(config: ModelConfig, precision: Precision): number {
  let bytes = 0
  const tables = /embed|lm_head|wte|wpe/
  for (const [name, dims] of requiredTensors(config)) {
    if (config.encoder && /embeddings/.test(name)) continue
    bytes += elements(dims) * (precision === 'fp32' ? 4 : tables.test(name) ? 3 : 2)
  }
  return bytes
}
