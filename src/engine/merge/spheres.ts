// Means on a sphere: slerp and its kin. A tensor is one long vector; a mean of directions keeps the length.

import { baseAndOthers, type MergeInput, type MergeMethod, numberOf } from './method.ts'

const f = Math.fround

/** Σ aᵢ·bᵢ from `at` on, every `stride`-th of `count`. */
function dot(a: Float32Array, b: Float32Array, { at, count, stride }: Line = whole(a)): number {
  let sum = 0
  for (let i = 0, k = at; i < count; i++, k += stride) sum += a[k]! * b[k]!
  return sum
}

interface Line {
  at: number
  count: number
  stride: number
}

const whole = (a: Float32Array): Line => ({ at: 0, count: a.length, stride: 1 })
const clamp = (x: number) => Math.min(1, Math.max(-1, x))
const norm = (a: Float32Array) => Math.sqrt(dot(a, a))

function subtract(a: Float32Array, b: Float32Array): Float32Array {
  for (let i = 0; i < a.length; i++) a[i] = a[i]! - b[i]!
  return a
}

function add(a: Float32Array, b: Float32Array): Float32Array {
  for (let i = 0; i < a.length; i++) a[i] = a[i]! + b[i]!
  return a
}

/** a ← p·a + q·b */
function mix(
  a: Float32Array,
  b: Float32Array,
  { p, q, line }: { p: number; q: number; line: Line },
) {
  for (let i = 0, k = line.at; i < line.count; i++, k += line.stride)
    a[k] = f(p * a[k]!) + f(q * b[k]!)
}

export const slerp: MergeMethod = {
  name: 'slerp',
  reference: 'Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985',
  base: 'required',
  others: { min: 1, max: 1 },
  parameters: { t: { type: 'number', of: 'merge' } },
  merge(group) {
    const { base: a, others } = baseAndOthers(group)
    const b = others[0]!.data
    const t = f(numberOf(group.parameters, 't'))
    const length = (x: number) => (x > 1e-8 ? x : 1)
    const cosine = clamp(dot(a, b) / (length(norm(a)) * length(norm(b))))
    let p = 1 - t
    let q = t
    // Nearly parallel: the sphere is flat between them.
    if (Math.abs(cosine) <= 0.9995) {
      const angle = Math.acos(cosine)
      p = Math.sin((1 - t) * angle) / Math.sin(angle)
      q = Math.sin(t * angle) / Math.sin(angle)
    }
    mix(a, b, { p: f(p), q: f(q), line: whole(a) })
    return a
  },
}

export const nuslerp: MergeMethod = {
  name: 'nuslerp',
  reference: 'https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md#nuslerp-nuslerp',
  base: 'optional',
  others: { min: 2, max: 2 },
  parameters: {
    weight: { type: 'number', of: 'other' },
    nuslerp_row_wise: { type: 'boolean', of: 'merge', default: false },
    nuslerp_flatten: { type: 'boolean', of: 'merge', default: true },
  },
  merge({ inputs, parameters, dims }) {
    const base = inputs.find(({ isBase }) => isBase)?.data
    const [first, second] = inputs.filter(({ isBase }) => !isBase) as [MergeInput, MergeInput]
    const weights = [first, second].map((input) => numberOf(input.parameters, 'weight'))
    const total = weights[0]! + weights[1]!
    const t = Math.abs(total) < 1e-6 ? 0.5 : weights[1]! / total
    const a = base ? subtract(first.data, base) : first.data
    const b = base ? subtract(second.data, base) : second.data
    const along = parameters.nuslerp_row_wise === true ? 0 : dims.length - 1
    const lines = parameters.nuslerp_flatten === true ? [whole(a)] : linesOf(dims, along)
    for (const line of lines) arc(a, b, { t, line })
    return base ? add(a, base) : a
  },
}

/** The vectors along one axis. */
function* linesOf(dims: readonly number[], axis: number): Generator<Line> {
  const count = dims[axis] ?? 1
  const stride = dims.slice(axis + 1).reduce((n, d) => n * d, 1)
  const outer = dims.slice(0, axis).reduce((n, d) => n * d, 1)
  for (let o = 0; o < outer; o++)
    for (let s = 0; s < stride; s++) yield { at: o * count * stride + s, count, stride }
}

function arc(a: Float32Array, b: Float32Array, { t, line }: { t: number; line: Line }): void {
  const length = (x: Float32Array) => Math.max(Math.sqrt(dot(x, x, line)), 1e-7)
  const cosine = clamp(dot(a, b, line) / (length(a) * length(b)))
  let p = 1 - t
  let q = t
  if (1 - cosine * cosine > 1e-16) {
    const angle = Math.acos(cosine)
    p = Math.sin((1 - t) * angle) / Math.sin(angle)
    q = Math.sin(t * angle) / Math.sin(angle)
  }
  mix(a, b, { p, q, line })
}

export const multislerp: MergeMethod = {
  name: 'multislerp',
  reference: 'https://goddard.blog/posts/multislerp-wow-what-a-cool-idea',
  base: 'optional',
  others: { min: 1 },
  parameters: {
    weight: { type: 'number', of: 'other' },
    normalize_weights: { type: 'boolean', of: 'merge', default: true },
    eps: { type: 'number', of: 'merge', default: 1e-8 },
  },
  merge({ name, inputs, parameters }) {
    const base = inputs.find(({ isBase }) => isBase)?.data
    const others = inputs.filter(({ isBase }) => !isBase)
    if (others.length === 1) return others[0]!.data
    const tensors = others.map(({ data }) => (base ? subtract(data, base) : data))
    const given = others.map((input) => numberOf(input.parameters, 'weight'))
    const total = parameters.normalize_weights === true ? given.reduce((s, w) => s + w, 0) : 1
    const weights = given.map((w) => w / total)
    const eps = numberOf(parameters, 'eps')
    const n = tensors[0]!.length
    const norms = tensors.map(norm)
    const units = tensors.map((x, i) => scaled(x, 1 / (norms[i]! + eps)))
    const mean = weightedSum(units, weights, n)
    const length = norm64(mean)
    if (length < eps) {
      if (units.length > 2)
        throw new Error(`tensor ${name}: the weighted directions cancel out; choose other weights`)
      const flat = weightedSum(
        units,
        weights.map((w, i) => w * (norms[i]! + eps)),
        n,
      )
      const out = Float32Array.from(flat)
      return base ? add(out, base) : out
    }
    for (let k = 0; k < n; k++) mean[k] = mean[k]! / length
    const tangent = new Float64Array(n)
    for (const [i, unit] of units.entries()) {
      let along = 0
      for (let k = 0; k < n; k++) along += unit[k]! * mean[k]!
      for (let k = 0; k < n; k++)
        tangent[k] = tangent[k]! + weights[i]! * (unit[k]! - along * mean[k]!)
    }
    const angle = norm64(tangent) + eps
    const radius = norms.reduce((sum, x, i) => sum + x * weights[i]!, 0)
    const p = Math.cos(angle) * radius
    const q = (Math.sin(angle) / angle) * radius
    const out = new Float32Array(n)
    for (let k = 0; k < n; k++) out[k] = p * mean[k]! + q * tangent[k]!
    return base ? add(out, base) : out
  },
}

export const karcher: MergeMethod = {
  name: 'karcher',
  reference: 'https://arxiv.org/abs/2603.04972',
  base: 'ignored',
  others: { min: 1 },
  parameters: {
    max_iter: { type: 'number', of: 'merge', default: 10 },
    tol: { type: 'number', of: 'merge', default: 1e-5 },
  },
  merge({ inputs, parameters }) {
    if (inputs.length === 1) return inputs[0]!.data
    const tol = numberOf(parameters, 'tol')
    const n = inputs[0]!.data.length
    const norms = inputs.map(({ data }) => norm(data))
    const units = inputs.flatMap(({ data }, i) =>
      norms[i]! > tol ? [scaled(data, 1 / norms[i]!)] : [],
    )
    const out = inputs[0]!.data
    if (units.length === 0) return out.fill(0)
    const share = 1 / units.length
    let mean = weightedSum(
      units,
      units.map(() => share),
      n,
    )
    const length = norm64(mean)
    if (length < tol) mean = Float64Array.from(units[0]!)
    else for (let k = 0; k < n; k++) mean[k] = mean[k]! / length
    for (let round = 0; round < numberOf(parameters, 'max_iter'); round++)
      if (!towardsMean(mean, units, { share, tol })) break
    const radius = norms.reduce((sum, x) => sum + x, 0) / inputs.length
    for (let k = 0; k < n; k++) out[k] = radius * mean[k]!
    return out
  },
}

/** One step of the descent on the sphere; false once it is short. */
function towardsMean(
  mean: Float64Array,
  units: readonly Float32Array[],
  { share, tol }: { share: number; tol: number },
): boolean {
  const n = mean.length
  const tangent = new Float64Array(n)
  for (const unit of units) {
    let cosine = 0
    for (let k = 0; k < n; k++) cosine += mean[k]! * unit[k]!
    cosine = clamp(cosine)
    const angle = Math.acos(cosine)
    if (angle < tol) continue
    const scale = (share * angle) / Math.sin(angle)
    for (let k = 0; k < n; k++) tangent[k] = tangent[k]! + scale * (unit[k]! - cosine * mean[k]!)
  }
  const step = norm64(tangent)
  if (step < tol) return false
  const p = Math.cos(step)
  const q = Math.sin(step) / step
  for (let k = 0; k < n; k++) mean[k] = p * mean[k]! + q * tangent[k]!
  const length = norm64(mean)
  if (length > tol) for (let k = 0; k < n; k++) mean[k] = mean[k]! / length
  return true
}

function scaled(x: Float32Array, factor: number): Float32Array {
  for (let k = 0; k < x.length; k++) x[k] = x[k]! * factor
  return x
}

function weightedSum(
  units: readonly Float32Array[],
  weights: readonly number[],
  n: number,
): Float64Array {
  const sum = new Float64Array(n)
  for (const [i, unit] of units.entries())
    for (let k = 0; k < n; k++) sum[k] = sum[k]! + weights[i]! * unit[k]!
  return sum
}

function norm64(x: Float64Array): number {
  let sum = 0
  for (let k = 0; k < x.length; k++) sum += x[k]! * x[k]!
  return Math.sqrt(sum)
}
