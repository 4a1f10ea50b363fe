// What a family of models must say: its names, and its forward pass up to the head.

import type { Value } from '../graph/graph.ts'
import type { ModelConfig } from '../weights/checkpoint.ts'
import type { Attend } from './layers.ts'
import type { Weights } from './weights.ts'

/** What a forward pass reads, token by token. */
export interface Tokens {
  /** Token ids [N], int64. */
  readonly ids: Value
  /** Each token's place in its own text [N], int64. */
  readonly positions: Value
  /** Places [S] in 0 … N−1, int64, each once: only their hidden states are given, [S, D]. Absent: all are. */
  readonly wanted?: Value | undefined
}

export interface Architecture {
  /** model_type in config.json, general.architecture in a GGUF. */
  readonly names: readonly string[]
  /** Tokens → final hidden states [N, D], ready for the head; the last layer computes no more than are wanted. */
  hidden(tokens: Tokens, weights: Weights, config: ModelConfig, attend: Attend): Value
  /** Where the head's `weight` [V, D] is. */
  head(weights: Weights, config: ModelConfig): Weights
}
