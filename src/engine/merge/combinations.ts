// How adapters are combined, by the names of PEFT's `add_weighted_adapter`: each one value in a table.

import type { LoraPair } from '../weights/adapter.ts'
import { largestSingular } from './singular.ts'
import type { Draw } from './sparsify.ts'
import { keepLargest, keepRandom, sparsify } from './sparsify.ts'

export interface Combination {
  readonly name: string
  /** Paper or description. */
  readonly reference: string
  /** What is combined: A with A and B with B, the products B·A, or nothing: the ranks are laid side by side. */
  readonly of: 'matrices' | 'product' | 'ranks'
  readonly pruning: 'none' | 'largest' | 'random'
  /** An element counts only where its sign is the majority's. */
  readonly vote: boolean
}

const PEFT = 'https://huggingface.co/docs/peft/developer_guides/model_merging'
const TIES = 'https://arxiv.org/abs/2306.01708'
const DARE = 'https://arxiv.org/abs/2311.03099'

const both = (name: string, rest: Omit<Combination, 'name' | 'of'>): Combination[] => [
  { name, of: 'matrices', ...rest },
  { name: `${name}_svd`, of: 'product', ...rest },
]

const TABLE: readonly Combination[] = [
  { name: 'linear', reference: PEFT, of: 'matrices', pruning: 'none', vote: false },
  { name: 'cat', reference: PEFT, of: 'ranks', pruning: 'none', vote: false },
  { name: 'svd', reference: PEFT, of: 'product', pruning: 'none', vote: false },
  ...both('ties', { reference: TIES, pruning: 'largest', vote: true }),
  ...both('dare_linear', { reference: DARE, pruning: 'random', vote: false }),
  ...both('dare_ties', { reference: DARE, pruning: 'random', vote: true }),
  ...both('magnitude_prune', { reference: PEFT, pruning: 'largest', vote: false }),
]

export const COMBINATIONS: ReadonlyMap<string, Combination> = new Map(
  TABLE.map((combination) => [combination.name, combination]),
)

/** One adapter's matrices of a module. */
export interface WeightedPair {
  readonly pair: LoraPair
  readonly r: number
  /** `lora_alpha` over the rank, or over its root. */
  readonly scaling: number
  readonly weight: number
  /** Its place among the adapters of the merge. */
  readonly adapter: number
}

export interface Combining {
  readonly density?: number
  readonly majority_sign_method: 'total' | 'frequency'
  readonly svd_clamp?: number
  /** Of the result. */
  readonly rank: number
  /** For the matrix of one adapter, by its place among them. */
  draw(matrix: 'lora_A' | 'lora_B' | 'delta', adapter: number): Draw
}

/** The module's matrices of all adapters as one pair of `rank`, whose scaling is 1. */
export function combinePairs(
  combination: Combination,
  pairs: readonly WeightedPair[],
  combining: Combining,
): LoraPair {
  const { in_features: inner, out_features: out } = pairs[0]!.pair
  const shape = { in_features: inner, out_features: out }
  if (combination.of === 'ranks') return { ...sideBySide(pairs, combining.rank), ...shape }
  if (combination.of === 'product') {
    const deltas = pairs.map(({ pair, r, scaling }) => product(pair, r, scaling))
    const weights = pairs.map(({ weight }) => weight)
    const delta = combineTensors(combination, deltas, { ...combining, weights, matrix: 'delta' })
    const { a, b } = decompose(delta, { out, inner, ...combining })
    return { a, b, ...shape }
  }
  const roots = pairs.map(({ weight, scaling }) => Math.sqrt(Math.abs(weight * scaling)))
  // The sign stands on one side only: on both it would be lost.
  const signed = roots.map((root, i) => (pairs[i]!.weight < 0 ? -root : root))
  const of = (matrix: 'lora_A' | 'lora_B', weights: readonly number[]) =>
    combineTensors(
      combination,
      pairs.map(({ pair }) => (matrix === 'lora_A' ? pair.a : pair.b).slice()),
      { ...combining, weights, matrix },
    )
  return { a: of('lora_A', signed), b: of('lora_B', roots), ...shape }
}

/** Tensors of one shape, pruned each by itself, weighted and summed. It writes into them. */
function combineTensors(
  { pruning, vote }: Combination,
  tensors: readonly Float32Array[],
  {
    weights,
    matrix,
    density = 1,
    majority_sign_method,
    draw,
  }: Combining & { weights: readonly number[]; matrix: 'lora_A' | 'lora_B' | 'delta' },
): Float32Array {
  for (const [i, tensor] of tensors.entries()) {
    if (pruning === 'largest')
      // PEFT keeps none where mergekit keeps one.
      sparsify(
        tensor,
        keepLargest(tensor.length, Math.trunc(density * tensor.length) === 0 ? 0 : density),
      )
    if (pruning === 'random' && density < 1) {
      sparsify(tensor, keepRandom(density, draw(matrix, i)))
      for (let k = 0; k < tensor.length; k++) tensor[k] = tensor[k]! / density
    }
  }
  const sum = new Float32Array(tensors[0]!.length)
  for (let k = 0; k < sum.length; k++) {
    if (!vote) {
      let total = 0
      for (let i = 0; i < tensors.length; i++) total += weights[i]! * tensors[i]![k]!
      sum[k] = total
      continue
    }
    let votes = 0
    for (const tensor of tensors)
      votes += majority_sign_method === 'total' ? tensor[k]! : Math.sign(tensor[k]!)
    const majority = votes >= 0 ? 1 : -1
    let total = 0
    let voters = 0
    for (let i = 0; i < tensors.length; i++) {
      if (Math.sign(tensors[i]![k]!) !== majority) continue
      total += weights[i]! * tensors[i]![k]!
      voters++
    }
    sum[k] = total / Math.max(voters, 1)
  }
  return sum
}

function sideBySide(pairs: readonly WeightedPair[], rank: number) {
  const { in_features: inner, out_features: out } = pairs[0]!.pair
  const a = new Float32Array(rank * inner)
  const b = new Float32Array(out * rank)
  let row = 0
  for (const { pair, r, scaling, weight } of pairs) {
    for (let k = 0; k < r * inner; k++) a[row * inner + k] = pair.a[k]! * (weight * scaling)
    for (let o = 0; o < out; o++)
      for (let k = 0; k < r; k++) b[o * rank + row + k] = pair.b[o * r + k]!
    row += r
  }
  return { a, b }
}

/** scaling · B·A, [out, in] */
function product(
  { a, b, in_features: inner, out_features: out }: LoraPair,
  r: number,
  scaling: number,
) {
  const delta = new Float32Array(out * inner)
  const row = new Float64Array(inner)
  for (let o = 0; o < out; o++) {
    row.fill(0)
    for (let k = 0; k < r; k++) {
      const factor = b[o * r + k]! * scaling
      for (let i = 0; i < inner; i++) row[i] = row[i]! + factor * a[k * inner + i]!
    }
    delta.set(row, o * inner)
  }
  return delta
}

/** B = U·S and A = Vᵀ of the largest `rank`; what there is not is zero. */
export function decompose(
  delta: Float32Array,
  {
    out,
    inner,
    rank,
    sv_epsilon = 0,
    svd_clamp,
  }: {
    out: number
    inner: number
    rank: number
    /** Singular values up to this are nothing. */
    sv_epsilon?: number
    svd_clamp?: number | undefined
  },
) {
  const { values: all, left, right } = largestSingular(delta, { out, inner, rank })
  const values = all.filter((value) => value > sv_epsilon)
  const a = new Float32Array(rank * inner)
  const b = new Float32Array(out * rank)
  for (const [k, value] of values.entries()) {
    a.set(right[k]!, k * inner)
    for (let o = 0; o < out; o++) b[o * rank + k] = value * left[k]![o]!
  }
  if (svd_clamp !== undefined) clamp([a, b], svd_clamp)
  return { a, b, values }
}

/** No element goes beyond the quantile of all, nor beyond its negative. */
function clamp(tensors: readonly Float32Array[], quantile: number): void {
  const all = new Float32Array(tensors.reduce((n, { length }) => n + length, 0))
  let filled = 0
  for (const tensor of tensors) {
    all.set(tensor, filled)
    filled += tensor.length
  }
  all.sort()
  const at = quantile * (all.length - 1)
  const low = all[Math.floor(at)]!
  const high = low + (at - Math.floor(at)) * (all[Math.ceil(at)]! - low)
  for (const tensor of tensors)
    for (let k = 0; k < tensor.length; k++) tensor[k] = Math.min(high, Math.max(-high, tensor[k]!))
}
