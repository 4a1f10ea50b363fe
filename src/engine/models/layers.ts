// The parts that decoders are built of. Hidden states are matrices [N, D]: N tokens, whatever rows they form.

import { constant, scalar, staticDims, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import { int64 } from '../tensor.ts'
import type { ModelConfig } from '../weights/checkpoint.ts'
import { rotaryFrequencies } from './rope.ts'
import type { Lora, Weights } from './weights.ts'

/** x [N, in] → [N, out], with the adapter on this projection if there is one. */
export const linear = (x: Value, w: Weights): Value => linears(x, [w])[0]!

/**
 * Several projections of one input, each [N, out]. Adapters share their first product: x·[A₁; A₂; …]ᵀ is one matrix
 * product where one for each would be too thin to be fast.
 */
export function linears(x: Value, ws: readonly Weights[]): Value[] {
  const { adapt } = ws[0]!
  if (adapt)
    return ws[0]!.products(x, ws).flatMap((block) => {
      const results = op.split(
        adapt(x, block),
        1,
        block.members.map((w) => outputs(w)),
      )
      return block.members.map((w, i) => addBias(results[i]!, w))
    })
  const loras = ws.flatMap(({ lora }) => lora ?? [])
  const read = loras[0]?.drop?.(x, ws.find(({ lora }) => lora)!.path) ?? x
  const inner = // read·Aᵀ of all, [N, Σr]
    loras.length > 0
      ? op.linear(
          read,
          op.concat(
            loras.map(({ a }) => a),
            0,
          ),
        )
      : undefined
  // As in PEFT, what DoRA adds to the frozen result is made of the dropped input altogether.
  const gained = loras.some(({ gain }) => gain)
  const dropped = gained && read !== x ? ws[0]!.products(read, ws) : undefined
  let from = 0
  return ws[0]!.products(x, ws).flatMap(({ y, members }, i) => {
    const widths = members.map((w) => outputs(w))
    const frozen = op.split(y, 1, widths)
    const bases = dropped ? op.split(dropped[i]!.y, 1, widths) : frozen
    return members.map((w, k) => {
      const { lora } = w
      if (!lora) return addBias(frozen[k]!, w)
      const own = op.slice(inner!, 1, from, from + rankOf(lora))
      from += rankOf(lora)
      const base = bases[k]!
      const adapted = op.gemm(own, lora.b, { transB: true, alpha: lora.scale, c: base })
      if (!lora.gain) return addBias(adapted, w)
      const long = op.mul(adapted, lora.gain(w.get('weight')))
      return addBias(dropped ? op.add(frozen[k]!, op.sub(long, base)) : long, w)
    })
  })
}

const outputs = (w: Weights): number => staticDims(w.get('weight').dims)[0]!
const rankOf = (lora: Lora): number => staticDims(lora.a.dims)[0]!

/** No adapter touches the bias. */
const addBias = (y: Value, w: Weights): Value => (w.has('bias') ? op.add(y, w.get('bias')) : y)

/** SwiGLU (arXiv 2002.05202): down(silu(gate(x)) · up(x)). */
export function mlp(x: Value, w: Weights): Value {
  const [gate, up] = linears(x, [w.at('gate_proj'), w.at('up_proj')])
  return linear(w.kept.between([gate!, up!], op.swiglu), w.at('down_proj'))
}

/** RMSNorm with the weight of this scope. */
export const rmsNorm = (x: Value, w: Weights, config: ModelConfig): Value =>
  op.rmsNorm(x, w.get('weight'), config.norm_eps)

/** LayerNorm with the weight and bias of this scope. */
export const layerNorm = (x: Value, w: Weights, config: ModelConfig): Value =>
  op.layerNorm(x, w.get('weight'), w.get('bias'), config.norm_eps)

/**
 * What lies between the q, k, v projections of a layer and its output projection. It rotates q and k itself, where
 * the family rotates them, and keeps to the layer's window.
 */
export type Attend = (q: Value, k: Value, v: Value, layer: number) => Value

/** Some rows of a matrix of all tokens, or all of them. */
export const rowsOf =
  (wanted: Value | undefined) =>
  (x: Value): Value =>
    wanted ? op.pick(x, wanted) : x

/** Self-attention of one layer: x [N, D] → [N, D], or to those rows of it that `some` takes. */
export function attention(
  x: Value,
  w: Weights,
  attend: Attend,
  layer: number,
  some = rowsOf(undefined),
): Value {
  const [q, k, v] = linears(x, [w.at('q_proj'), w.at('k_proj'), w.at('v_proj')])
  const mixed = w.kept.between([q!, k!, v!], (q, k, v) => attend(q, k, v, layer))
  return linear(some(mixed), w.at('o_proj'))
}

export interface PackedRows {
  /** Rows B and tokens T of each: N = B·T. */
  readonly rows: number
  readonly length: number
  /** Each token's place in its own example, [B, T] int64. */
  readonly positions: Value
  /** Which example of its row each token belongs to, [B, T] int64. */
  readonly segments: Value
}

/** Queries of a row that are taken together: what lies after the last of them, or before all windows, is not computed. */
export const QUERIES = 128

/**
 * Causal attention over rows in which several examples lie end to end: a token sees its own example only.
 * Query heads that share a key head are one matrix, so keys are never repeated.
 */
export function packedAttention(config: ModelConfig, packed: PackedRows): Attend {
  const { rows: B, length: T, positions, segments } = packed
  const K = config.head_dim
  const G = config.num_key_value_heads
  const R = config.num_attention_heads / G // query heads for one key head
  const rotate = rotation(config, (f) => ({ table: op.rotaryTable(T, f), rows: positions }))
  const stretches = new Map<number, Stretch[]>()
  const stretchesOf = (window: number): Stretch[] => {
    const known = stretches.get(window) ?? cut(segments, { rows: B, length: T, window })
    stretches.set(window, known)
    return known
  }

  return (q, k, v, layer) => {
    const turned = (x: Value, heads: number) =>
      op.reshape(rotate(op.reshape(x, [B, T, heads * K])), [B, T, G, heads / G, K])
    const queries = op.transpose(turned(q, G * R), [0, 2, 3, 1, 4])
    const keys = op.transpose(op.reshape(turned(k, G), [B, T, G, K]), [0, 2, 1, 3]) // [B, G, T, K]
    const values = op.transpose(op.reshape(v, [B, T, G, K]), [0, 2, 1, 3]) // [B, G, T, K]
    const window = Math.min(T, config.sliding_windows?.[layer] ?? T)
    const parts = stretchesOf(window).map(({ from, to, first, mask }) => {
      const [Q, C] = [to - from, to - first] // queries, and the keys that any of them sees
      const P = evenPieces(B * G, R * Q)
      const pieces = [B, G, P, (R * Q) / P]
      const one = (x: Value) => op.reshape(x, [B, G, 1, ...x.dims.slice(2)])
      const some = op.reshape(op.slice(queries, 3, from, to), [...pieces, K])
      const alpha = 1 / Math.sqrt(K)
      const scores = op.batchedGemm(some, one(op.slice(keys, 2, first, to)), {
        transB: true,
        alpha,
      })
      const masked = op.add(op.reshape(scores, [B, G, R, Q, C]), mask)
      const mixed = op.mixBySoftmax(
        op.reshape(masked, [...pieces, C]),
        one(op.slice(values, 2, first, to)),
      )
      return op.reshape(mixed, [B, G, R, Q, K])
    })
    const mixed = op.concat(parts, 3)
    return op.reshape(op.transpose(mixed, [0, 3, 1, 2, 4]), [B * T, G * R * K])
  }
}

/**
 * Pieces into which the queries of a key head are cut, so that `heads` of them in all are an even number: the runtime
 * gives whole products of a batch to its threads, and of three the second thread would have one while the first has two.
 */
const evenPieces = (heads: number, queries: number): number =>
  heads % 2 === 1 && queries % 2 === 0 ? 2 : 1

/** Some queries of each row, from … to, the first key that they see, and their part of the mask. */
interface Stretch {
  readonly from: number
  readonly to: number
  readonly first: number
  /** [B, 1, 1, to − from, to − first] */
  readonly mask: Value
}

function cut(segments: Value, shape: { rows: number; length: number; window: number }): Stretch[] {
  const { length: T, window } = shape
  const mask = packedMask(segments, shape)
  return Array.from({ length: Math.ceil(T / QUERIES) }, (_, i) => {
    const from = i * QUERIES
    const to = Math.min(T, from + QUERIES)
    const first = Math.max(0, from - window + 1)
    return { from, to, first, mask: op.slice(op.slice(mask, 3, from, to), 4, first, to) }
  })
}

/** 0 where a token may look, `window` tokens back at most, far below every score where it may not: [B, 1, 1, T, T]. */
function packedMask(
  segments: Value,
  { rows: B, length: T, window }: { rows: number; length: number; window: number },
): Value {
  const same = op.equal(
    op.reshape(segments, [B, 1, 1, T, 1]),
    op.reshape(segments, [B, 1, 1, 1, T]),
  )
  const places = Array.from({ length: T }, (_, i) => i)
  const at = constant(int64([1, T], places))
  const past = op.greaterOrEqual(constant(int64([T, 1], places)), at)
  const seen = op.and(same, past)
  if (window >= T) return op.where(seen, scalar(0), scalar(-1e9))
  const oldest = places.map((i) => i - window + 1)
  const near = op.greaterOrEqual(at, constant(int64([T, 1], oldest)))
  return op.where(op.and(seen, near), scalar(0), scalar(-1e9))
}

/** Turns queries and keys [B, T, H·K] by their positions; leaves them where the family has none to turn by. */
export function rotation(
  config: ModelConfig,
  places: (frequencies: Float32Array) => { table: op.RotaryTable; rows: Value },
): (x: Value) => Value {
  const frequencies = rotaryFrequencies(config)
  if (!frequencies) return (x) => x
  const { table, rows } = places(frequencies)
  return (x) => op.rotary(x, rows, table)
}
