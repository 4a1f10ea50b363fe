// Attention over a cache that the caller keeps: past keys and values are only read, new ones are given out.
// onnxruntime in Node copies every output, so a cache must not be one (docs/facts.md).

import { constant, emitOne, ints, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { int64 } from '../tensor.ts'
import type { ModelConfig } from '../weights/checkpoint.ts'
import { type Attend, rotation } from './layers.ts'

export interface CachedRows {
  /** Each new token's place in its sequence, [B, S] int64: N = B·S. */
  readonly positions: Value
  /** Past keys, turned so that a query meets them without a copy, [B, G, 1, K, C]; and values [B, G, 1, C, K]. */
  past(layer: number): { key: Value; value: Value }
  /** C as a vector of one int64. */
  readonly capacity: Value
  /** By window (undefined: none): 0 where a query may look, −∞ where not, [B, 1, 1, S, C + S]: the past, then the new. */
  mask(window: number | undefined): Value
}

/** New keys and values of each layer, [B, S, G·K]: the caller puts them into the cache. */
export type Fresh = { key: Value; value: Value }[]

/**
 * Causal attention of S new tokens of each of B sequences: over the past, and among themselves. Each head's query is a
 * row of its own, for a product of one row reads its matrix where it lies.
 */
export function cachedAttention(
  config: ModelConfig,
  cached: CachedRows,
): { attend: Attend; fresh: Fresh } {
  const K = config.head_dim
  const G = config.num_key_value_heads
  const R = config.num_attention_heads / G // query heads for one key head
  const rotate = rotation(config, (f) => op.rotaryRows(cached.positions, f))
  const batch = emitOne('Shape', [cached.positions], { dtype: 'int64', dims: [2] })
  const shapes = new Map<number, Value>()
  const rows = (x: Value, width: number): Value => {
    const type = { dtype: 'int64' as const, dims: [3] }
    const shape =
      shapes.get(width) ??
      emitOne('Concat', [batch, ints(width)], type, { attributes: { axis: 0 } })
    shapes.set(width, shape)
    return emitOne('Reshape', [x, shape], { dtype: 'float32', dims: ['B', 'S', width] })
  }
  /** [B, S, G·n·K] → [B, G, n, S, K] or [B, G, n, K, S] */
  const heads = (x: Value, n: number, turned = false): Value => {
    const apart = reshapeTo(x, [0, 0, G, n, K], ['B', 'S', G, n, K])
    return turned
      ? transposed(apart, [0, 2, 3, 4, 1], ['B', G, n, K, 'S'])
      : transposed(apart, [0, 2, 3, 1, 4], ['B', G, n, 'S', K])
  }

  const fresh: Fresh = []
  const attend: Attend = (q, k, v, layer) => {
    const past = cached.past(layer)
    const queries = heads(rotate(rows(op.scale(q, 1 / Math.sqrt(K)), G * R * K)), R)
    const key = rotate(rows(k, G * K))
    const value = rows(v, G * K)
    fresh[layer] = { key, value }

    const wide = ['B', G, R, 'S', 'C+S']
    const scores = emitOne(
      'Concat',
      [
        product(queries, past.key, ['B', G, R, 'S', 'C']),
        product(queries, heads(key, 1, true), ['B', G, R, 'S', 'S']),
      ],
      { dtype: 'float32', dims: wide },
      { attributes: { axis: -1 } },
    )
    const window = config.sliding_windows?.[layer] ?? undefined
    const masked = emitOne('Add', [scores, cached.mask(window)], scores)
    const p = emitOne('Softmax', [masked], scores, { attributes: { axis: -1 } })
    const part = (from: Value, to: Value, size: string): Value =>
      emitOne('Slice', [p, from, to, ints(-1)], { dtype: 'float32', dims: ['B', G, R, 'S', size] })
    const mixed = op.add(
      product(part(ints(0), cached.capacity, 'C'), past.value, ['B', G, R, 'S', K]),
      product(part(cached.capacity, ints(END), 'S'), heads(value, 1), ['B', G, R, 'S', K]),
    )
    const together = transposed(mixed, [0, 3, 1, 2, 4], ['B', 'S', G, R, K])
    return reshapeTo(together, [-1, G * R * K], ['N', G * R * K])
  }
  return { attend, fresh }
}

/** Past the end of every axis. */
const END = 2 ** 40

const product = (a: Value, b: Value, dims: (string | number)[]): Value =>
  emitOne('MatMul', [a, b], { dtype: 'float32', dims })

const reshapeTo = (x: Value, sizes: number[], dims: (string | number)[]): Value =>
  emitOne('Reshape', [x, constant(int64([sizes.length], sizes))], { dtype: 'float32', dims })

const transposed = (x: Value, perm: number[], dims: (string | number)[]): Value =>
  emitOne('Transpose', [x], { dtype: 'float32', dims }, { attributes: { perm } })
