// Means on a sphere: slerp and its kin. A tensor is one long vector; a mean of directions keeps the length.

import {
  add,
  type MergeGroup,
  type MergeMethod,
  numberOf,
  placesBesideBase,
  placesOf,
  subtract,
} from './method.ts'

const f = Math.fround
const clamp = (x: number) => Math.min(1, Math.max(-1, x))

/** Σ aᵢ·bᵢ, added to what was there before. */
function dot(a: Float32Array, b: Float32Array, before = 0): number {
  let sum = before
  for (let k = 0; k < a.length; k++) sum += a[k]! * b[k]!
  return sum
}

/** The products of two vectors with each other and with themselves, as far as they have been added up. */
class Products {
  ab = 0
  aa = 0
  bb = 0

  add(a: Float32Array, b: Float32Array): this {
    this.ab = dot(a, b, this.ab)
    this.aa = dot(a, a, this.aa)
    this.bb = dot(b, b, this.bb)
    return this
  }
}

/** a ← p·a + q·b */
function mix(a: Float32Array, b: Float32Array, { p, q }: Arc): void {
  for (let k = 0; k < a.length; k++) a[k] = f(p * a[k]!) + f(q * b[k]!)
}

/** How much of either end a point between them has. */
interface Arc {
  readonly p: number
  readonly q: number
}

export const slerp: MergeMethod = {
  name: 'slerp',
  reference: 'Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985',
  base: 'required',
  others: { min: 1, max: 1 },
  parameters: { t: { type: 'number', of: 'merge' } },
  begin(group) {
    const { base, others } = placesBesideBase(group)
    const other = others[0]!
    const t = f(numberOf(group.parameters, 't'))
    const products = new Products()
    group.scan(({ data }) => products.add(data[base]!, data[other]!))
    const length = (square: number) => (Math.sqrt(square) > 1e-8 ? Math.sqrt(square) : 1)
    const cosine = clamp(products.ab / (length(products.aa) * length(products.bb)))
    let [p, q] = [1 - t, t]
    // Nearly parallel: the sphere is flat between them.
    if (Math.abs(cosine) <= 0.9995) {
      const angle = Math.acos(cosine)
      p = Math.sin((1 - t) * angle) / Math.sin(angle)
      q = Math.sin(t * angle) / Math.sin(angle)
    }
    const between = { p: f(p), q: f(q) }
    return ({ data }) => {
      mix(data[base]!, data[other]!, between)
      return data[base]!
    }
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
  begin(group) {
    const { inputs, parameters, dims } = group
    const { base, others } = placesOf(group)
    const weights = others.map((i) => numberOf(inputs[i]!.parameters, 'weight'))
    const total = weights[0]! + weights[1]!
    const t = Math.abs(total) < 1e-6 ? 0.5 : weights[1]! / total
    const arc = (products: Products) => arcOf(products, t)
    const merge = ofTwo(others as [number, number], base)
    if (parameters.nuslerp_flatten === true || dims.length < 2) {
      const products = new Products()
      group.scan(({ data }) => products.add(...merge.ends(data)))
      return merge.piece((a, b) => mix(a, b, arc(products)))
    }
    if (parameters.nuslerp_row_wise !== true) {
      const width = dims.at(-1)!
      return merge.piece((a, b) => {
        for (let at = 0; at < a.length; at += width) {
          const row = [a.subarray(at, at + width), b.subarray(at, at + width)] as const
          mix(...row, arc(new Products().add(...row)))
        }
      })
    }
    return merge.piece(alongColumns(group, merge.ends, arc))
  },
}

type Ends = readonly [Float32Array, Float32Array]

/** What is merged of two inputs: what they have more than the base, where there is one. */
const ofTwo = ([first, second]: readonly [number, number], base: number | undefined) => {
  const ends = (data: readonly Float32Array[]): Ends => {
    const [a, b] = [data[first]!, data[second]!]
    return base === undefined ? [a, b] : [subtract(a, data[base]!), subtract(b, data[base]!)]
  }
  return {
    ends,
    piece:
      (between: (a: Float32Array, b: Float32Array, at: number) => void) =>
      ({ at, data }: { at: number; data: readonly Float32Array[] }) => {
        const [a, b] = ends(data)
        between(a, b, at)
        return base === undefined ? a : add(a, data[base]!)
      },
  }
}

/** Each vector along the first axis has an arc of its own. */
function alongColumns(
  { dims, scan }: MergeGroup,
  ends: (data: readonly Float32Array[]) => Ends,
  arc: (products: Products) => Arc,
) {
  const columns = dims.slice(1).reduce((n, d) => n * d, 1)
  const products = Array.from({ length: columns }, () => new Products())
  scan(({ at, data }) => {
    const [a, b] = ends(data)
    for (let k = 0; k < a.length; k++) {
      const of = products[(at + k) % columns]!
      of.ab += a[k]! * b[k]!
      of.aa += a[k]! * a[k]!
      of.bb += b[k]! * b[k]!
    }
  })
  const arcs = products.map(arc)
  return (a: Float32Array, b: Float32Array, at: number) => {
    for (let k = 0; k < a.length; k++) {
      const { p, q } = arcs[(at + k) % columns]!
      a[k] = f(p * a[k]!) + f(q * b[k]!)
    }
  }
}

function arcOf({ ab, aa, bb }: Products, t: number): Arc {
  const length = (square: number) => Math.max(Math.sqrt(square), 1e-7)
  const cosine = clamp(ab / (length(aa) * length(bb)))
  if (1 - cosine * cosine <= 1e-16) return { p: 1 - t, q: t }
  const angle = Math.acos(cosine)
  return {
    p: Math.sin((1 - t) * angle) / Math.sin(angle),
    q: Math.sin(t * angle) / Math.sin(angle),
  }
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
  begin(group) {
    const { name, inputs, parameters, scan } = group
    const { base, others } = placesOf(group)
    if (others.length === 1) return ({ data }) => data[others[0]!]!
    const given = others.map((i) => numberOf(inputs[i]!.parameters, 'weight'))
    const total = parameters.normalize_weights === true ? given.reduce((s, w) => s + w, 0) : 1
    const weights = given.map((w) => w / total)
    const eps = numberOf(parameters, 'eps')
    const moved = (data: readonly Float32Array[]) =>
      others.map((i) => (base === undefined ? data[i]! : subtract(data[i]!, data[base]!)))
    const back = (out: Float32Array, data: readonly Float32Array[]) =>
      base === undefined ? out : add(out, data[base]!)

    const norms = others.map(() => 0)
    scan(({ data }) => {
      for (const [i, x] of moved(data).entries()) norms[i] = dot(x, x, norms[i])
    })
    for (const i of norms.keys()) norms[i] = Math.sqrt(norms[i]!)
    const unitsOf = (data: readonly Float32Array[]) =>
      moved(data).map((x, i) => scaled(x, 1 / (norms[i]! + eps)))

    let square = 0
    scan(({ data }) => {
      square = dot64(weightedSum(unitsOf(data), weights), square)
    })
    const length = Math.sqrt(square)
    if (length < eps) {
      if (others.length > 2)
        throw new Error(`tensor ${name}: the weighted directions cancel out; choose other weights`)
      const lengths = weights.map((w, i) => w * (norms[i]! + eps))
      return ({ data }) => back(Float32Array.from(weightedSum(unitsOf(data), lengths)), data)
    }
    const meanOf = (units: readonly Float32Array[]) => {
      const mean = weightedSum(units, weights)
      for (let k = 0; k < mean.length; k++) mean[k] = mean[k]! / length
      return mean
    }
    const along = others.map(() => 0)
    scan(({ data }) => {
      const units = unitsOf(data)
      const mean = meanOf(units)
      for (const [i, unit] of units.entries()) {
        let sum = along[i]!
        for (let k = 0; k < unit.length; k++) sum += unit[k]! * mean[k]!
        along[i] = sum
      }
    })
    /** Where the others lie, seen from the mean. */
    const tangentOf = (units: readonly Float32Array[], mean: Float64Array) => {
      const tangent = new Float64Array(mean.length)
      for (const [i, unit] of units.entries())
        for (let k = 0; k < mean.length; k++)
          tangent[k] = tangent[k]! + weights[i]! * (unit[k]! - along[i]! * mean[k]!)
      return tangent
    }
    let step = 0
    scan(({ data }) => {
      const units = unitsOf(data)
      step = dot64(tangentOf(units, meanOf(units)), step)
    })
    const angle = Math.sqrt(step) + eps
    const radius = norms.reduce((sum, x, i) => sum + x * weights[i]!, 0)
    const p = Math.cos(angle) * radius
    const q = (Math.sin(angle) / angle) * radius
    return ({ data }) => {
      const units = unitsOf(data)
      const mean = meanOf(units)
      const tangent = tangentOf(units, mean)
      const out = new Float32Array(mean.length)
      for (let k = 0; k < out.length; k++) out[k] = p * mean[k]! + q * tangent[k]!
      return back(out, data)
    }
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
  begin({ inputs, parameters, scan }) {
    if (inputs.length === 1) return ({ data }) => data[0]!
    const tol = numberOf(parameters, 'tol')
    const norms = inputs.map(() => 0)
    scan(({ data }) => {
      for (const [i, x] of data.entries()) norms[i] = dot(x, x, norms[i])
    })
    for (const i of norms.keys()) norms[i] = Math.sqrt(norms[i]!)
    const long = [...norms.keys()].filter((i) => norms[i]! > tol)
    if (long.length === 0) return ({ data }) => data[0]!.fill(0)
    const unitsOf = (data: readonly Float32Array[]) =>
      long.map((i) => scaled(data[i]!, 1 / norms[i]!))
    // The mean is a sum of the directions: their products say all of it.
    const gram = long.map(() => new Float64Array(long.length))
    scan(({ data }) => {
      const units = unitsOf(data)
      for (const [i, a] of units.entries())
        for (let j = i; j < units.length; j++) gram[i]![j] = dot(a, units[j]!, gram[i]![j])
    })
    for (const [i, row] of gram.entries()) for (let j = 0; j < i; j++) row[j] = gram[j]![i]!
    const radius = norms.reduce((sum, x) => sum + x, 0) / inputs.length
    const parts = meanOnSphere(gram, { tol, rounds: numberOf(parameters, 'max_iter') })
    return ({ data }) => {
      const mean = weightedSum(unitsOf(data), parts)
      const out = data[0]!
      for (let k = 0; k < out.length; k++) out[k] = radius * mean[k]!
      return out
    }
  },
}

/** The mean of directions on the sphere, as a sum of them: what each counts in it. From their products alone. */
function meanOnSphere(
  gram: readonly Float64Array[],
  { tol, rounds }: { tol: number; rounds: number },
): number[] {
  const share = 1 / gram.length
  const lengthOf = (parts: readonly number[]) => {
    let square = 0
    for (const [i, row] of gram.entries())
      for (const [j, x] of row.entries()) square += parts[i]! * parts[j]! * x
    return Math.sqrt(Math.max(0, square))
  }
  let mean = gram.map(() => share)
  const length = lengthOf(mean)
  mean = length < tol ? gram.map((_, i) => (i === 0 ? 1 : 0)) : mean.map((x) => x / length)
  for (let round = 0; round < rounds; round++) {
    const tangent = gram.map(() => 0)
    for (const [i, row] of gram.entries()) {
      const cosine = clamp(row.reduce((sum, x, j) => sum + x * mean[j]!, 0))
      const angle = Math.acos(cosine)
      if (angle < tol) continue
      const scale = (share * angle) / Math.sin(angle)
      tangent[i] = tangent[i]! + scale
      for (const j of mean.keys()) tangent[j] = tangent[j]! - scale * cosine * mean[j]!
    }
    const step = lengthOf(tangent)
    if (step < tol) break
    const [p, q] = [Math.cos(step), Math.sin(step) / step]
    mean = mean.map((x, j) => p * x + q * tangent[j]!)
    const reached = lengthOf(mean)
    if (reached > tol) mean = mean.map((x) => x / reached)
  }
  return mean
}

function scaled(x: Float32Array, factor: number): Float32Array {
  for (let k = 0; k < x.length; k++) x[k] = x[k]! * factor
  return x
}

function weightedSum(units: readonly Float32Array[], weights: readonly number[]): Float64Array {
  const sum = new Float64Array(units[0]!.length)
  for (const [i, unit] of units.entries())
    for (let k = 0; k < sum.length; k++) sum[k] = sum[k]! + weights[i]! * unit[k]!
  return sum
}

/** Σ x², added to what was there before. */
function dot64(x: Float64Array, before = 0): number {
  let sum = before
  for (let k = 0; k < x.length; k++) sum += x[k]! * x[k]!
  return sum
}
