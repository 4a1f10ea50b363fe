// Merges that take over what differs most: where the models vary, or where a tuned model has moved far from its base.

import { type MergeMethod, numberOf, placesBesideBase, scratch, subtract } from './method.ts'
import { ranking } from './select.ts'

const f = Math.fround

export const sce: MergeMethod = {
  name: 'sce',
  reference: 'https://arxiv.org/abs/2408.07990',
  base: 'required',
  others: { min: 0 },
  parameters: {
    select_topk: { type: 'number', of: 'merge', default: 1 },
    int8_mask: { type: 'boolean', of: 'merge', default: false },
  },
  begin(group) {
    const { base, others } = placesBesideBase(group)
    if (others.length === 0) return ({ data }) => data[base]!
    const deltasOf = (data: readonly Float32Array[]) =>
      others.map((i) => subtract(data[i]!, data[base]!))
    const { scan, parameters, dims } = group
    const total = dims.reduce((n, d) => n * d, 1)
    const topk = numberOf(parameters, 'select_topk')
    const walk =
      topk < 1
        ? mostVaried(topk, total, (visit) => scan(({ data }) => visit(deltasOf(data))))
        : undefined
    const sums = new Float64Array(others.length)
    const first = walk?.()
    scan(({ data }) => {
      const deltas = deltasOf(data)
      first?.(deltas)
      for (const [i, delta] of deltas.entries()) {
        let sum = sums[i]!
        for (let k = 0; k < delta.length; k++) sum += delta[k]! * delta[k]!
        sums[i] = sum
      }
    })
    const squares = Array.from(sums, (sum) => f(sum / total))
    const all = squares.reduce((sum, x) => f(sum + x), 0)
    const weights = squares.map((x) => f(Math.abs(all) < 1e-6 ? 1 / others.length : x / all))
    const drop = walk?.()
    return ({ data }) => {
      const deltas = deltasOf(data)
      drop?.(deltas)
      return fuse(data[base]!, deltas, weights)
    }
  },
}

/** Adds to the base what the task vectors say, of those with the sign of their sum. */
function fuse(
  base: Float32Array,
  deltas: readonly Float32Array[],
  weights: readonly number[],
): Float32Array {
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
}

type Deltas = readonly Float32Array[]

/** Keeps the places where the task vectors differ most, a part of those where they differ: walks that drop the others. */
function mostVaried(part: number, total: number, scan: (visit: (deltas: Deltas) => void) => void) {
  const variance = scratch()
  let varied = 0
  const kept = () => (part <= 0 ? 0 : Math.trunc(f(varied * part)))
  const { look, found } = ranking(() => [total - kept()])
  scan((deltas) => {
    const of = varianceOf(deltas, variance(deltas[0]!.length))
    for (let k = 0; k < of.length; k++) if (of[k] !== 0) varied++
    look(of, 0)
  })
  if (kept() === 0)
    return () => (deltas: Deltas) => {
      for (const delta of deltas) delta.fill(0)
    }
  scan((deltas) => look(varianceOf(deltas, variance(deltas[0]!.length)), 1))
  const [{ value, below, equal }] = found() as [ReturnType<typeof found>[number]]
  return () => {
    let left = kept() - (total - below - equal)
    return (deltas: Deltas) => {
      const of = varianceOf(deltas, variance(deltas[0]!.length))
      for (let k = 0; k < of.length; k++) {
        if (of[k]! > value || (of[k] === value && left-- > 0)) continue
        for (const delta of deltas) delta[k] = 0
      }
    }
  }
}

function varianceOf(deltas: Deltas, out: Float32Array): Float32Array {
  for (let k = 0; k < out.length; k++) {
    let mean = 0
    for (const delta of deltas) mean += delta[k]!
    mean /= deltas.length
    let sum = 0
    for (const delta of deltas) sum += (delta[k]! - mean) ** 2
    out[k] = sum / deltas.length
  }
  return out
}

export const arceeFusion: MergeMethod = {
  name: 'arcee_fusion',
  reference:
    'https://www.arcee.ai/blog/meet-mergekit-v0-1-arcee-fusion-expanded-model-support-multi-gpu-acceleration',
  base: 'required',
  others: { min: 1, max: 1 },
  parameters: {},
  begin(group) {
    const { base, others } = placesBesideBase(group)
    const total = group.dims.reduce((n, d) => n * d, 1)
    const importance = importanceOf(group.dims.at(-1) ?? 1)
    const { look, found } = ranking(
      () => [0.25, 0.5, 0.75].map((q) => Math.trunc(q * (total - 1))),
      true,
    )
    for (const which of [0, 1])
      group.scan(({ data }) => look(importance(data[others[0]!]!, data[base]!), which))
    const [low, median, high] = found().map(({ value }) => value) as [number, number, number]
    const threshold = f(median + f(1.5 * f(high - low)))
    return ({ data }) => {
      const [out, tuned] = [data[base]!, data[others[0]!]!]
      const of = importance(tuned, out)
      for (let k = 0; k < out.length; k++)
        if (of[k]! >= threshold) out[k] = out[k]! + f(tuned[k]! - out[k]!)
      return out
    }
  },
}

/** |tuned − base|, weighted by how far the rows' softmaxes lie apart. */
function importanceOf(width: number) {
  const keep = scratch()
  const [p, q] = [new Float64Array(width), new Float64Array(width)]
  return (tuned: Float32Array, base: Float32Array): Float32Array => {
    const out = keep(base.length)
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
