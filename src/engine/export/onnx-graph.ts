// The forward pass as other runtimes want it: standard operators only, any batch and any length, names as Hugging Face's
// exporter Optimum gives them. Knows no files.

import { constant, emitOne, input, ints, scalar, type Value } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { type EncoderTokens, encoderOf } from '../models/encoder.ts'
import { classifierHead } from '../models/encoder-heads.ts'
import { encoderArchitectureOf } from '../models/encoders.ts'
import { architectureOf } from '../models/index.ts'
import type { Attend } from '../models/layers.ts'
import { rotaryFrequencies } from '../models/rope.ts'
import { type Weights, weightsOf } from '../models/weights.ts'
import { float32, int64 } from '../tensor.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { EncoderUse } from '../weights/tuned-encoder.ts'

/** What one of another runtime has no operator for. */
const OURS = ['SimplifiedLayerNormalization', 'QuickGelu', 'FastGelu', 'Gelu'] as const

type Size = number | string
const shaped = (x: Value, shape: Value, dims: readonly Size[]): Value =>
  emitOne('Reshape', [x, shape], { dtype: x.dtype, dims })
const joined = (parts: readonly Value[], axis: number, dims: readonly Size[]): Value =>
  emitOne('Concat', parts, { dtype: parts[0]!.dtype, dims }, { attributes: { axis } })
const turned = (x: Value, perm: readonly number[]): Value =>
  emitOne(
    'Transpose',
    [x],
    { dtype: x.dtype, dims: perm.map((p) => x.dims[p]!) },
    { attributes: { perm } },
  )
const product = (a: Value, b: Value, dims: readonly Size[]): Value =>
  emitOne('MatMul', [a, b], { dtype: 'float32', dims })
const sizeOf = (x: Value, axis: number): Value =>
  emitOne(
    'Shape',
    [x],
    { dtype: 'int64', dims: [1] },
    { attributes: { start: axis, end: axis + 1 } },
  )
const alone = (x: Value): Value => emitOne('Squeeze', [x, ints(0)], { dtype: x.dtype, dims: [] })
const range = (from: Value, to: Value, name: string): Value =>
  emitOne('Range', [alone(from), alone(to), constant(int64([], [1]))], {
    dtype: 'int64',
    dims: [name],
  })
const widened = (x: Value, axes: readonly number[], dims: readonly Size[]): Value =>
  emitOne('Unsqueeze', [x, ints(...axes)], { dtype: x.dtype, dims })

/** [B, S] → [N] */
const flat = (x: Value): Value => op.reshape(x, ['N'])

interface Places {
  readonly ids: Value
  /** 0 where a token may look, far below every score where it may not. */
  readonly mask: (layer: number) => Value
  /** Each token's place [B, S], where queries and keys are turned by it. */
  readonly positions: Value | undefined
  /** What was before, of each layer: keys and values [B, G, P, K]; and where they go with the new ones. */
  readonly past?: (layer: number) => { key: Value; value: Value }
  readonly present?: (layer: number, key: Value, value: Value) => void
}

function attentionOf({ config }: Pick<MappedWeights, 'config'>, places: Places): Attend {
  const K = config.head_dim
  const G = config.num_key_value_heads
  const H = config.num_attention_heads
  const R = H / G
  const rows = joined([sizeOf(places.ids, 0), sizeOf(places.ids, 1)], 0, [2])
  const apart = (heads: number) => joined([rows, ints(heads, K)], 0, [4])
  const turn = rotationOf(config, places.positions)
  const headsOf = (x: Value, heads: number) => shaped(x, apart(heads), ['B', 'S', heads, K])
  return (q, k, v, layer) => {
    const queries = turned(turn(headsOf(op.scale(q, 1 / Math.sqrt(K)), H)), [0, 2, 1, 3]) // [B, H, S, K]
    const newKeys = turned(turn(headsOf(k, G)), [0, 2, 1, 3]) // [B, G, S, K]
    const newValues = turned(headsOf(v, G), [0, 2, 1, 3])
    const past = places.past?.(layer)
    const all = ['B', G, 'T', K]
    const keys = past ? joined([past.key, newKeys], 2, all) : newKeys
    const values = past ? joined([past.value, newValues], 2, all) : newValues
    places.present?.(layer, keys, values)

    // Query heads that share a key head are one matrix, so keys are never repeated.
    const some = shaped(queries, ints(0, G, -1, K), ['B', G, 'RS', K])
    const scores = product(some, turned(keys, [0, 1, 3, 2]), ['B', G, 'RS', 'T'])
    const split = joined(
      [sizeOf(places.ids, 0), ints(G, R), sizeOf(places.ids, 1), ints(-1)],
      0,
      [5],
    )
    const masked = emitOne(
      'Add',
      [shaped(scores, split, ['B', G, R, 'S', 'T']), places.mask(layer)],
      { dtype: 'float32', dims: ['B', G, R, 'S', 'T'] },
    )
    const shares = emitOne('Softmax', [masked], masked, { attributes: { axis: -1 } })
    const back = joined([sizeOf(places.ids, 0), ints(G, -1), sizeOf(keys, 2)], 0, [4])
    const mixed = product(shaped(shares, back, ['B', G, 'RS', 'T']), values, ['B', G, 'RS', K])
    const heads = joined([sizeOf(places.ids, 0), ints(H), sizeOf(places.ids, 1), ints(K)], 0, [4])
    const together = turned(shaped(mixed, heads, ['B', H, 'S', K]), [0, 2, 1, 3])
    return shaped(together, ints(-1, H * K), ['N', H * K])
  }
}

/** x [B, S, H, K], each half of a head turned by the angles of its place, as Hugging Face's llama does it. */
function rotationOf(config: MappedWeights['config'], positions: Value | undefined) {
  const frequencies = rotaryFrequencies(config)
  if (!frequencies || !positions) return (x: Value) => x
  const half = frequencies.length
  const places = widened(op.toFloat(positions), [2, 3], ['B', 'S', 1, 1])
  const angles = op.mul(places, constant(float32([1, 1, 1, half], frequencies)))
  const cos = emitOne('Cos', [angles], angles)
  const sin = emitOne('Sin', [angles], angles)
  return (x: Value): Value => {
    const [a, b] = op.split(x, 3, [half, half]) as [Value, Value]
    return op.concat(
      [op.sub(op.mul(a, cos), op.mul(b, sin)), op.add(op.mul(b, cos), op.mul(a, sin))],
      3,
    )
  }
}

/** [B, 1, 1, 1, T] or [B, 1, 1, S, T] of booleans → 0 or far below every score. */
const asMask = (seen: Value): Value => op.where(seen, scalar(0), scalar(-1e9))

const toBool = (x: Value): Value =>
  emitOne('Cast', [x], { dtype: 'bool', dims: x.dims }, { attributes: { to: 9 } })

/**
 * A decoder. Inputs: `input_ids` and `position_ids` [B, S], `attention_mask` [B, P + S], all int64, and of each layer i
 * `past_key_values.<i>.key` and `.value` [B, G, P, K], P may be 0. Outputs: `logits` [B, S, V], `present.<i>.key` and
 * `.value` [B, G, P + S, K].
 */
export function decoderOnnx(mapped: MappedWeights, read: Read): Uint8Array {
  const { config } = mapped
  const { num_key_value_heads: G, head_dim: K, vocab_size: V } = config
  const ids = input('input_ids', 'int64', ['batch_size', 'sequence_length'])
  const attended = input('attention_mask', 'int64', ['batch_size', 'total_sequence_length'])
  const positions = input('position_ids', 'int64', ['batch_size', 'sequence_length'])
  const total = sizeOf(attended, 1)
  const before = op.sub(total, sizeOf(ids, 1))
  const keys = widened(range(ints(0), total, 'T'), [0], [1, 'T'])
  const queries = widened(range(before, total, 'S'), [1], ['S', 1])
  const past = op.greaterOrEqual(queries, keys)
  const present5 = widened(toBool(attended), [1, 2, 3], ['B', 1, 1, 1, 'T'])
  const masks = new Map<number | null, Value>()
  const mask = (layer: number): Value => {
    const window = config.sliding_windows?.[layer] ?? null
    const near =
      window === null
        ? past
        : op.and(past, op.greater(op.add(keys, constant(int64([1], [window]))), queries))
    const known = masks.get(window) ?? asMask(op.and(present5, near))
    masks.set(window, known)
    return known
  }
  const outputs: Record<string, Value> = {}
  const cacheDims = ['batch_size', G, 'past_sequence_length', K]
  const attend = attentionOf(mapped, {
    ids,
    mask,
    positions,
    past: (layer) => ({
      key: input(`past_key_values.${layer}.key`, 'float32', cacheDims),
      value: input(`past_key_values.${layer}.value`, 'float32', cacheDims),
    }),
    present(layer, key, value) {
      outputs[`present.${layer}.key`] = named(key, ['batch_size', G, 'total_sequence_length', K])
      outputs[`present.${layer}.value`] = named(value, [
        'batch_size',
        G,
        'total_sequence_length',
        K,
      ])
    },
  })
  const architecture = architectureOf(config)
  const weights = weightsOf(mapped, { trained: read })
  const tokens = { ids: flat(ids), positions: flat(positions) }
  const hidden = architecture.hidden(tokens, weights, config, attend)
  const logits = op.linear(hidden, architecture.head(weights, config).get('weight'))
  const shape = joined([sizeOf(ids, 0), sizeOf(ids, 1), ints(V)], 0, [3])
  const named3 = shaped(logits, shape, ['batch_size', 'sequence_length', V])
  return encodeOnnx({ logits: named3, ...outputs }, OURS)
}

/** The same value with sizes that a reader is told by name. */
const named = (x: Value, dims: readonly Size[]): Value =>
  emitOne('Identity', [x], { dtype: x.dtype, dims })

/** Tensors by their full names, where they are not read as they lie. */
export type Read = ReadonlyMap<string, Value>

/**
 * An encoder. Inputs: `input_ids`, `attention_mask` and, where the family tells a second text from the first,
 * `token_type_ids`, [B, S] int64. Output: `logits`, [B, L] or [B, S, L], or `last_hidden_state` [B, S, D].
 */
export function encoderOnnx(mapped: MappedWeights, use: EncoderUse, read: Read): Uint8Array {
  const { config } = mapped
  const dims = ['batch_size', 'sequence_length']
  const ids = input('input_ids', 'int64', dims)
  const attended = input('attention_mask', 'int64', dims)
  const kinds = encoderOf(config).type_vocab_size
  const types =
    kinds > 1
      ? input('token_type_ids', 'int64', dims)
      : kinds === 1
        ? op.mul(ids, constant(int64([1], [0])))
        : undefined
  // The n-th token that counts has the place n − 1, on whichever side the padding is.
  const counted = emitOne('CumSum', [attended, constant(int64([], [1]))], attended)
  const positions = emitOne(
    'Max',
    [op.sub(counted, constant(int64([1], [1]))), constant(int64([1], [0]))],
    counted,
  )
  const mask = asMask(widened(toBool(attended), [1, 2, 3], ['B', 1, 1, 1, 'T']))
  const weights: Weights = weightsOf(mapped, { trained: read })
  const tokens: EncoderTokens = {
    ids: flat(ids),
    positions: flat(positions),
    types: types && flat(types),
  }
  const attend = attentionOf(mapped, { ids, mask: () => mask, positions: undefined })
  const architecture = encoderArchitectureOf(config)
  const hidden = architecture.hidden(tokens, weights, config, attend) // [N, D]
  const D = config.hidden_size
  const all = (x: Value, width: number) =>
    shaped(x, joined([sizeOf(ids, 0), sizeOf(ids, 1), ints(width)], 0, [3]), [...dims, width])
  if (use.method === 'embedding') return encodeOnnx({ last_hidden_state: all(hidden, D) }, OURS)
  const head = classifierHead(config, use.task)
  const labels = use.labels.length
  if (use.task === 'tokens')
    return encodeOnnx({ logits: all(head.logits(hidden, weights), labels) }, OURS)
  const first = emitOne(
    'Gather',
    [all(hidden, D), constant(int64([], [0]))],
    { dtype: 'float32', dims: ['batch_size', D] },
    { attributes: { axis: 1 } },
  )
  return encodeOnnx({ logits: head.logits(first, weights) }, OURS)
}
