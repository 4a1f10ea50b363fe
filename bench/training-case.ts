// A training step that is forecast and measured, and the plan of a job that would run it.

import type { Keep } from '../src/engine/models/keep.ts'
import type { MethodName } from '../src/engine/train/methods/index.ts'
import type { Precision } from '../src/engine/train/precision.ts'
import type { Plan } from '../src/engine/train/request.ts'
import { familyOf, type ModelConfig } from '../src/engine/weights/model-config.ts'

export interface Case {
  readonly method: MethodName
  readonly adapter: 'lora' | 'none'
  readonly rank: number
  readonly rows: number
  readonly length: number
  /** Every n-th token is supervised. */
  readonly every: number
  readonly keep: Keep
  readonly precision: Precision
  readonly steps?: number
}

/** A plan of one micro-batch a step. */
export const planOf = (wanted: Case, config: ModelConfig): Plan => ({
  n_epochs: 1,
  batch_size: wanted.rows,
  learning_rate_multiplier: 1,
  learning_rate: 1e-5,
  lora: { rank: wanted.rank, alpha: 16, target_modules: [...familyOf(config).linear] },
  ...(wanted.adapter === 'none' && { adapter: 'none' as const }),
  lr_schedule: 'constant',
  warmup_steps: 0,
  weight_decay: 0.01,
  max_grad_norm: 1,
  total_steps: 1,
  max_sequence_length: wanted.length,
  row_length: wanted.length,
  rows: wanted.rows,
  ...(wanted.keep !== 'everything' && { keep: wanted.keep }),
  threads: 2,
  precision: wanted.precision,
  beta: 0.1,
  facts: { labels: ['a', 'b'], task: 'single' },
  reasons: [],
})
