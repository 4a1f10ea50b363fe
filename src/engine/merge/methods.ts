// The merge methods by mergekit's names: each one value, with where it is described.

import { arceeFusion, sce } from './importance.ts'
import { type MergeMethod, numberOf, placesBesideBase, scratch } from './method.ts'
import { karcher, multislerp, nuslerp, slerp } from './spheres.ts'
import { TASK_VECTOR_METHODS } from './task-vectors.ts'

const f = Math.fround

const linear: MergeMethod = {
  name: 'linear',
  reference: 'https://arxiv.org/abs/2203.05482',
  base: 'ignored',
  others: { min: 1 },
  parameters: {
    weight: { type: 'number', of: 'input' },
    normalize: { type: 'boolean', of: 'merge', default: true },
  },
  carriesNoNumbers: true,
  begin({ inputs, parameters }) {
    const weights = inputs.map((input) => f(numberOf(input.parameters, 'weight')))
    const total = weights.reduce((sum, w) => f(sum + w), 0)
    const divisor = parameters.normalize === true ? total : 1
    return ({ data }) => {
      const out = data[0]!
      weigh(out, weights[0]!)
      for (let i = 1; i + 1 < data.length; i += 2)
        addTwoWeighted(out, [data[i]!, data[i + 1]!], [weights[i]!, weights[i + 1]!])
      if (data.length % 2 === 0) addWeighted(out, data.at(-1)!, weights.at(-1)!)
      if (divisor !== 1) for (let k = 0; k < out.length; k++) out[k] = out[k]! / divisor
      return out
    }
  },
}

function weigh(x: Float32Array, weight: number): void {
  for (let k = 0; k < x.length; k++) x[k] = f(x[k]! * weight)
}

function addWeighted(sum: Float32Array, x: Float32Array, weight: number): void {
  for (let k = 0; k < sum.length; k++) sum[k] = f(sum[k]! + f(x[k]! * weight))
}

/** One after the other, in one pass. */
function addTwoWeighted(
  sum: Float32Array,
  [x, y]: readonly [Float32Array, Float32Array],
  [a, b]: readonly [number, number],
): void {
  for (let k = 0; k < sum.length; k++) sum[k] = f(f(sum[k]! + f(x[k]! * a)) + f(y[k]! * b))
}

const passthrough: MergeMethod = {
  name: 'passthrough',
  reference:
    'https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md#passthrough-passthrough',
  base: 'ignored',
  others: { min: 1, max: 1 },
  parameters: { scale: { type: 'number', of: 'input', default: null } },
  begin({ inputs: [input] }) {
    const { parameters } = input!
    const scale = parameters.scale === null ? undefined : f(numberOf(parameters, 'scale'))
    return ({ data: [out] }) => {
      if (scale !== undefined) weigh(out!, scale)
      return out!
    }
  },
}

const nearswap: MergeMethod = {
  name: 'nearswap',
  reference: 'https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001',
  base: 'required',
  others: { min: 1, max: 1 },
  parameters: { t: { type: 'number', of: 'merge' } },
  begin(group) {
    const { base, others } = placesBesideBase(group)
    const t = f(numberOf(group.parameters, 't'))
    return ({ data }) => {
      const [a, b] = [data[base]!, data[others[0]!]!]
      for (let k = 0; k < a.length; k++) {
        const distance = Math.max(Math.abs(f(a[k]! - b[k]!)), f(1e-6))
        const weight = Math.min(1, Math.max(0, f(t / distance)))
        a[k] = f(weight * b[k]!) + f(f(1 - weight) * a[k]!)
      }
      return a
    }
  },
}

const modelStock: MergeMethod = {
  name: 'model_stock',
  reference: 'https://arxiv.org/abs/2403.19522',
  base: 'required',
  others: { min: 2 },
  parameters: { filter_wise: { type: 'boolean', of: 'merge', default: false } },
  begin(group) {
    const { base, others } = placesBesideBase(group)
    const { dims, parameters } = group
    const width = dims.at(-1) ?? 1
    const sum = scratch()
    const towardsMean = (data: readonly Float32Array[], t: number, [from, to]: Range) => {
      const out = data[base]!
      const mean = sum(to - from).fill(0)
      for (const i of others) {
        const x = data[i]!
        for (let k = from; k < to; k++) mean[k - from] = f(mean[k - from]! + x[k]!)
      }
      const n = others.length
      const rest = f(1 - t)
      for (let k = from; k < to; k++) out[k] = f(t * f(mean[k - from]! / n)) + f(rest * out[k]!)
    }
    if (parameters.filter_wise === true && dims.length > 1)
      return ({ data }) => {
        for (let at = 0; at < data[base]!.length; at += width) {
          const row: Range = [at, at + width]
          const cosines = pairsOf(others)
          addProducts(cosines, data, base, row)
          towardsMean(data, f(stockRatio(cosines, others.length)), row)
        }
        return data[base]!
      }
    const cosines = pairsOf(others)
    group.scan(({ data }) => addProducts(cosines, data, base, [0, data[base]!.length]))
    const t = f(stockRatio(cosines, others.length))
    return ({ data }) => {
      towardsMean(data, t, [0, data[base]!.length])
      return data[base]!
    }
  },
}

type Range = readonly [from: number, to: number]

/** Two task vectors: their product and their squares, as far as they have been added up. */
interface Pair {
  readonly a: number
  readonly b: number
  ab: number
  aa: number
  bb: number
}

const pairsOf = (others: readonly number[]): Pair[] =>
  others.flatMap((a, i) => others.slice(i + 1).map((b) => ({ a, b, ab: 0, aa: 0, bb: 0 })))

function addProducts(
  pairs: readonly Pair[],
  data: readonly Float32Array[],
  base: number,
  [from, to]: Range,
): void {
  const origin = data[base]!
  for (const pair of pairs) {
    const [x, y] = [data[pair.a]!, data[pair.b]!]
    let { ab, aa, bb } = pair
    for (let k = from; k < to; k++) {
      const a = f(x[k]! - origin[k]!)
      const b = f(y[k]! - origin[k]!)
      ab += a * b
      aa += a * a
      bb += b * b
    }
    Object.assign(pair, { ab, aa, bb })
  }
}

/** How far from the base to the mean of the `n` others: equation 7 of the paper, from the mean cosine of all pairs. */
function stockRatio(pairs: readonly Pair[], n: number): number {
  let cosines = 0
  for (const { ab, aa, bb } of pairs) {
    const cosine = ab / Math.max(Math.sqrt(aa) * Math.sqrt(bb), 1e-6)
    cosines += Math.min(1, Math.max(-1, cosine))
  }
  const cosine = cosines / ((n * (n - 1)) / 2)
  const denominator = 1 + (n - 1) * cosine
  // Opposing updates have no finite estimate: the base stays.
  return Math.abs(denominator) < 1e-6 ? 0 : (n * cosine) / denominator
}

const METHODS: readonly MergeMethod[] = [
  linear,
  slerp,
  nuslerp,
  multislerp,
  karcher,
  ...TASK_VECTOR_METHODS,
  sce,
  modelStock,
  nearswap,
  arceeFusion,
  passthrough,
]

export const MERGE_METHODS: ReadonlyMap<string, MergeMethod> = new Map(
  METHODS.map((method) => [method.name, method]),
)
