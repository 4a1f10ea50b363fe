// The merge methods by mergekit's names: each one value, with where it is described.

import { baseAndOthers, type MergeMethod, numberOf } from './method.ts'
import { rankOf } from './select.ts'
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
  elementwise: true,
  merge({ inputs, parameters }) {
    const weights = inputs.map((input) => f(numberOf(input.parameters, 'weight')))
    const total = weights.reduce((sum, w) => f(sum + w), 0)
    const divisor = parameters.normalize === true ? total : 1
    const out = inputs[0]!.data
    for (let k = 0; k < out.length; k++) {
      let sum = 0
      for (let i = 0; i < inputs.length; i++) sum = f(sum + f(inputs[i]!.data[k]! * weights[i]!))
      out[k] = sum / divisor
    }
    return out
  },
}

const passthrough: MergeMethod = {
  name: 'passthrough',
  reference:
    'https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md#passthrough-passthrough',
  base: 'ignored',
  others: { min: 1, max: 1 },
  parameters: { scale: { type: 'number', of: 'input', default: null } },
  elementwise: true,
  merge({ inputs: [input] }) {
    const { data, parameters } = input!
    if (parameters.scale === null) return data
    const scale = f(numberOf(parameters, 'scale'))
    for (let k = 0; k < data.length; k++) data[k] = data[k]! * scale
    return data
  },
}

const nearswap: MergeMethod = {
  name: 'nearswap',
  reference: 'https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001',
  base: 'required',
  others: { min: 1, max: 1 },
  parameters: { t: { type: 'number', of: 'merge' } },
  elementwise: true,
  merge(group) {
    const { base: a, others } = baseAndOthers(group)
    const b = others[0]!.data
    const t = f(numberOf(group.parameters, 't'))
    for (let k = 0; k < a.length; k++) {
      const distance = Math.max(Math.abs(f(a[k]! - b[k]!)), f(1e-6))
      const weight = Math.min(1, Math.max(0, f(t / distance)))
      a[k] = f(weight * b[k]!) + f(f(1 - weight) * a[k]!)
    }
    return a
  },
}

const modelStock: MergeMethod = {
  name: 'model_stock',
  reference: 'https://arxiv.org/abs/2403.19522',
  base: 'required',
  others: { min: 2 },
  parameters: { filter_wise: { type: 'boolean', of: 'merge', default: false } },
  merge(group) {
    const { base, others } = baseAndOthers(group)
    const { dims, parameters } = group
    const ofRows = parameters.filter_wise === true && dims.length > 1
    const width = ofRows ? dims.at(-1)! : base.length
    const tensors = others.map(({ data }) => data)
    for (let at = 0; at < base.length; at += width) {
      const t = f(stockRatio(base, tensors, { at, width }))
      for (let k = at; k < at + width; k++) {
        let sum = 0
        for (const tensor of tensors) sum = f(sum + tensor[k]!)
        const mean = f(sum / tensors.length)
        base[k] = f(t * mean) + f(f(1 - t) * base[k]!)
      }
    }
    return base
  },
}

/** How far from the base to the mean of the others: equation 7 of the paper, from the mean cosine of all pairs. */
function stockRatio(
  base: Float32Array,
  tensors: readonly Float32Array[],
  { at, width }: { at: number; width: number },
): number {
  const n = tensors.length
  let cosines = 0
  for (let i = 0; i < n; i++)
    for (let j = i + 1; j < n; j++) {
      let ab = 0
      let aa = 0
      let bb = 0
      for (let k = at; k < at + width; k++) {
        const a = f(tensors[i]![k]! - base[k]!)
        const b = f(tensors[j]![k]! - base[k]!)
        ab += a * b
        aa += a * a
        bb += b * b
      }
      const cosine = ab / Math.max(Math.sqrt(aa) * Math.sqrt(bb), 1e-6)
      cosines += Math.min(1, Math.max(-1, cosine))
    }
  const cosine = cosines / ((n * (n - 1)) / 2)
  const denominator = 1 + (n - 1) * cosine
  // Opposing updates have no finite estimate: the base stays.
  return Math.abs(denominator) < 1e-6 ? 0 : (n * cosine) / denominator
}

const sce: MergeMethod = {
  name: 'sce',
  reference: 'https://arxiv.org/abs/2408.07990',
  base: 'required',
  others: { min: 0 },
  parameters: {
    select_topk: { type: 'number', of: 'merge', default: 1 },
    int8_mask: { type: 'boolean', of: 'merge', default: false },
  },
  merge(group) {
    const { base, others } = baseAndOthers(group)
    const deltas = others.map(({ data }) => data)
    if (deltas.length === 0) return base
    for (const delta of deltas)
      for (let k = 0; k < delta.length; k++) delta[k] = delta[k]! - base[k]!
    const topk = numberOf(group.parameters, 'select_topk')
    if (topk < 1) keepMostVaried(deltas, topk)
    const squares = deltas.map((delta) => {
      let sum = 0
      for (let k = 0; k < delta.length; k++) sum += delta[k]! * delta[k]!
      return f(sum / delta.length)
    })
    const total = squares.reduce((sum, x) => f(sum + x), 0)
    const weights = squares.map((x) => f(Math.abs(total) < 1e-6 ? 1 / deltas.length : x / total))
    for (let k = 0; k < base.length; k++) {
      let sum = 0
      for (const delta of deltas) sum = f(sum + delta[k]!)
      const majority = sum >= 0 ? 1 : -1
      let mixed = 0
      let divisor = 0
      for (let i = 0; i < deltas.length; i++) {
        const delta = deltas[i]![k]!
        if (Math.sign(delta) !== majority) continue
        mixed = f(mixed + f(delta * weights[i]!))
        divisor = f(divisor + weights[i]!)
      }
      base[k] = base[k]! + f(mixed / Math.max(divisor, f(1e-6)))
    }
    return base
  },
}

/** Keeps the places where the task vectors differ most, a part of those where they differ. */
function keepMostVaried(deltas: readonly Float32Array[], part: number): void {
  const n = deltas[0]!.length
  const variance = new Float32Array(n)
  let varied = 0
  for (let k = 0; k < n; k++) {
    let mean = 0
    for (const delta of deltas) mean += delta[k]!
    mean /= deltas.length
    let sum = 0
    for (const delta of deltas) sum += (delta[k]! - mean) ** 2
    variance[k] = sum / deltas.length
    if (variance[k] !== 0) varied++
  }
  const kept = part <= 0 ? 0 : Math.trunc(f(varied * part))
  if (kept === 0) {
    for (const delta of deltas) delta.fill(0)
    return
  }
  const { value } = rankOf(variance, n - kept)
  let above = 0
  for (let k = 0; k < n; k++) if (variance[k]! > value) above++
  let equal = kept - above
  for (let k = 0; k < n; k++) {
    if (variance[k]! > value || (variance[k] === value && equal-- > 0)) continue
    for (const delta of deltas) delta[k] = 0
  }
}

const arceeFusion: MergeMethod = {
  name: 'arcee_fusion',
  reference:
    'https://www.arcee.ai/blog/meet-mergekit-v0-1-arcee-fusion-expanded-model-support-multi-gpu-acceleration',
  base: 'required',
  others: { min: 1, max: 1 },
  parameters: {},
  merge(group) {
    const { base, others } = baseAndOthers(group)
    const tuned = others[0]!.data
    const importance = importanceOf(tuned, base, group.dims.at(-1) ?? 1)
    const at = (q: number) =>
      rankOf(importance, Math.trunc(q * (importance.length - 1)), true).value
    const [low, median, high] = [at(0.25), at(0.5), at(0.75)]
    const threshold = f(median + f(1.5 * f(high - low)))
    for (let k = 0; k < base.length; k++)
      if (importance[k]! >= threshold) base[k] = base[k]! + f(tuned[k]! - base[k]!)
    return base
  },
}

/** |tuned − base|, weighted by how far the rows' softmaxes lie apart. */
function importanceOf(tuned: Float32Array, base: Float32Array, width: number): Float32Array {
  const out = new Float32Array(base.length)
  const p = new Float64Array(width)
  const q = new Float64Array(width)
  for (let at = 0; at < base.length; at += width) {
    softmax(tuned.subarray(at, at + width), p)
    softmax(base.subarray(at, at + width), q)
    let divergence = 0
    for (let k = 0; k < width; k++) {
      const x = p[k]! + 1e-8
      divergence += x * Math.log(x / (q[k]! + 1e-8))
    }
    const weight = f(divergence)
    for (let k = at; k < at + width; k++) out[k] = Math.abs(f(tuned[k]! - base[k]!)) * weight
  }
  return out
}

function softmax(x: Float32Array, out: Float64Array): void {
  let most = Number.NEGATIVE_INFINITY
  for (let k = 0; k < x.length; k++) most = Math.max(most, x[k]!)
  let sum = 0
  for (let k = 0; k < x.length; k++) {
    out[k] = Math.exp(x[k]! - most)
    sum += out[k]!
  }
  for (let k = 0; k < x.length; k++) out[k] = out[k]! / sum
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
