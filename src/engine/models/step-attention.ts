// Attention of one new token of each sequence over a cache that the caller keeps: nothing is transposed, for there is nothing
// between a token's heads and their values. `cached-attention.ts` does the same for any number of new tokens.

import {
  constant,
  type Dims,
  emit,
  emitOne,
  ints,
  type Value,
  type ValueType,
} from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { int64 } from '../tensor.ts'
import type { ModelConfig } from '../weights/checkpoint.ts'
import type { CachedRows, Fresh } from './cached-attention.ts'
import { type Attend, rotation } from './layers.ts'

/**
 * Each key head of each sequence is a row of its own, [B·G, …]: past keys [B·G, 1, K, C] and values [B·G, 1, C, K], masks
 * [B·G, 1, 1, C + 1], new keys and values [B·G, 1, 1, K]; `positions` [B, 1].
 */
export function stepAttention(
  config: ModelConfig,
  cached: CachedRows,
): { attend: Attend; fresh: Fresh } {
  const K = config.head_dim
  const G = config.num_key_value_heads
  const R = config.num_attention_heads / G // query heads for one key head
  const scale = 1 / Math.sqrt(K)
  const rotate = rotation(config, (f) => op.rotaryRows(cached.positions, f, { heads: G }))
  // The table that turns queries scales them too.
  const turn = rotation(config, (f) => op.rotaryRows(cached.positions, f, { heads: G, scale }))
  const turnScaled = config.rope_theta === undefined ? (x: Value) => op.scale(x, scale) : turn
  const type = { dtype: 'int64' as const, dims: [2] }
  const parts = emitOne('Concat', [cached.capacity, ints(1)], type, { attributes: { axis: 0 } })

  const fresh: Fresh = []
  const attend: Attend = (q, k, v, layer) => {
    const past = cached.past(layer)
    const queries = turnScaled(shaped(q, [-1, R, 1, K], ['B·G', R, 1, K]))
    const key = rotate(shaped(k, [-1, 1, 1, K], ['B·G', 1, 1, K]))
    const value = shaped(v, [-1, 1, 1, K], ['B·G', 1, 1, K])
    fresh[layer] = { key, value }

    const wide = ['B·G', R, 1, 'C+1']
    const own = emitOne('FusedMatMul', [queries, key], float(['B·G', R, 1, 1]), {
      domain: 'com.microsoft',
      attributes: { transB: 1 },
    })
    const before = emitOne('MatMul', [queries, past.key], float(['B·G', R, 1, 'C']))
    const scores = emitOne('Concat', [before, own], float(wide), { attributes: { axis: -1 } })
    const window = config.sliding_windows?.[layer] ?? undefined
    const masked = emitOne('Add', [scores, cached.mask(window)], scores)
    const p = emitOne('Softmax', [masked], scores, { attributes: { axis: -1 } })
    const [pPast, pOwn] = emit(
      'Split',
      [p, parts],
      [float(['B·G', R, 1, 'C']), float(['B·G', R, 1, 1])],
      { attributes: { axis: -1 } },
    )
    const mixed = op.add(
      emitOne('MatMul', [pPast, past.value], float(['B·G', R, 1, K])),
      emitOne('Mul', [pOwn, value], float(['B·G', R, 1, K])),
    )
    return shaped(mixed, [-1, G * R * K], ['N', G * R * K])
  }
  return { attend, fresh }
}

const float = (dims: Dims): ValueType => ({ dtype: 'float32', dims })

const shaped = (x: Value, sizes: number[], dims: Dims): Value =>
  emitOne('Reshape', [x, constant(int64([sizes.length], sizes))], float(dims))
