// What a family of encoders must say, and the parts that they are built of: attention that sees a whole text.

import { type RowGroup, rowGroups, type TextShape } from '../datasets/text-batches.ts'
import { scalar, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { EncoderConfig, Shapes } from '../weights/families/family.ts'
import type { ModelConfig } from '../weights/model-config.ts'
import type { Tokens } from './architecture.ts'
import type { Attend } from './layers.ts'
import type { Weights } from './weights.ts'

export interface EncoderTokens extends Tokens {
  /** 0 in a first text, 1 in a second [N], int64; only where the family knows kinds of tokens. */
  readonly types: Value | undefined
}

export interface EncoderArchitecture {
  /** model_type in config.json. */
  readonly names: readonly string[]
  /** Under which the base's tensors lie: `bert`. */
  readonly prefix: string
  /** Tokens → final hidden states [N, D]. */
  hidden(tokens: EncoderTokens, weights: Weights, config: ModelConfig, attend: Attend): Value
  /** From the hidden state of each text's first token [S, D] to logits [S, L]. */
  readonly classifier: Head
}

/** A head over hidden states, as Hugging Face's model of the task has it. */
export interface Head {
  /** Name and shape of its tensors for L labels; those that a checkpoint may bring along are `given`. */
  tensors(config: ModelConfig, labels: number): { fresh: Shapes; given?: Shapes }
  logits(hidden: Value, weights: Weights): Value
}

export const encoderOf = (config: ModelConfig): EncoderConfig => {
  if (!config.encoder) throw new Error(`model_type ${config.model_type} is no encoder`)
  return config.encoder
}

/**
 * Attention over rows in which several texts lie end to end: a token sees all of its own text, and nothing else.
 * `segments` [N] says which text of its row each token belongs to. Rows of each length are computed by themselves.
 */
export function textAttention(config: ModelConfig, segments: Value, shape: TextShape): Attend {
  let start = 0
  const groups = rowGroups(shape).map((group) => {
    const [from, to] = [start, start + group.rows * group.length]
    start = to
    return { from, to, attend: groupAttention(config, op.slice(segments, 0, from, to), group) }
  })
  return (q, k, v, layer) =>
    op.concat(
      groups.map(({ from, to, attend }) => {
        const part = (x: Value) => op.slice(x, 0, from, to)
        return attend(part(q), part(k), part(v), layer)
      }),
      0,
    )
}

function groupAttention(
  config: ModelConfig,
  segments: Value,
  { rows: B, length: T }: RowGroup,
): Attend {
  const H = config.num_attention_heads
  const K = config.head_dim
  const same = op.equal(op.reshape(segments, [B, 1, T, 1]), op.reshape(segments, [B, 1, 1, T]))
  const mask = op.where(same, scalar(0), scalar(-1e9)) // [B, 1, T, T]
  return (q, k, v) => {
    const heads = (x: Value) => op.transpose(op.reshape(x, [B, T, H, K]), [0, 2, 1, 3]) // [B, H, T, K]
    const alpha = 1 / Math.sqrt(K)
    const scores = op.batchedGemm(heads(q), heads(k), { transB: true, alpha })
    const mixed = op.mixBySoftmax(op.add(scores, mask), heads(v))
    return op.reshape(op.transpose(mixed, [0, 2, 1, 3]), [B * T, H * K])
  }
}
