// What a family of models must say: its names, and its forward pass up to the head.

import type { Value } from '../graph/graph.ts'
import type { ModelConfig } from '../weights/checkpoint.ts'
import type { Attend } from './layers.ts'
import type { Weights } from './weights.ts'

export interface Architecture {
  /** model_type in config.json, general.architecture in a GGUF. */
  readonly names: readonly string[]
  /** Token ids [N] (int64) → final hidden states [N, D], ready for the head. */
  hidden(tokens: Value, weights: Weights, config: ModelConfig, attend: Attend): Value
  /** The head's weight [V, D]. */
  head(weights: Weights, config: ModelConfig): Value
}
