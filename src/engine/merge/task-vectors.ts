// Task arithmetic and its kin: what each model adds to the base, thinned out, weighted, put to the vote of signs.

import {
  add,
  type MergeGroup,
  type MergeMethod,
  numberOf,
  placesBesideBase,
  scratch,
  subtract,
} from './method.ts'
import type { ParameterSpec } from './settings.ts'
import {
  drawAt,
  keepByRank,
  keepLargest,
  keepMiddle,
  keepRandom,
  type Sparsifier,
  sumOfMagnitudes,
} from './sparsify.ts'

const f = Math.fround

type Thinning = 'none' | 'largest' | 'random' | 'middle' | 'rank'

interface Kind {
  name: string
  reference: string
  thinning: Thinning
  /** An element counts only where its sign is the sign of the sum. */
  vote: boolean
  normalize: boolean
  rescale: boolean
}

const number = (of: ParameterSpec['of'], value?: number): ParameterSpec =>
  value === undefined ? { type: 'number', of } : { type: 'number', of, default: value }
const flag = (value: boolean): ParameterSpec => ({ type: 'boolean', of: 'merge', default: value })

const taskVectors = ({
  name,
  reference,
  thinning,
  vote,
  normalize,
  rescale,
}: Kind): MergeMethod => ({
  name,
  reference,
  base: 'required',
  others: { min: 0 },
  parameters: {
    weight: number('other'),
    density: number('other', 1),
    ...(thinning === 'middle' && { gamma: number('other', 0.01) }),
    ...(thinning === 'rank' && { epsilon: number('other', 0.15) }),
    normalize: flag(normalize),
    rescale: flag(rescale),
    lambda: number('merge', 1),
    // Of mergekit's memory; the numbers are the same.
    int8_mask: flag(false),
  },
  begin(group) {
    const { base, others } = placesBesideBase(group)
    const inputs = others.map((i) => group.inputs[i]!.parameters)
    const weights = inputs.map((parameters) => f(numberOf(parameters, 'weight')))
    const thin = thinner(group, { thinning, inputs })
    const sum = (vote ? sumOfVotes : plainSum)({
      weights,
      normalize: group.parameters.normalize === true,
      lambda: f(numberOf(group.parameters, 'lambda')),
    })
    return ({ at, data }) => {
      const deltas = others.map((i) => subtract(data[i]!, data[base]!))
      for (const [i, delta] of deltas.entries()) {
        thin[i]?.(delta, at)
        weigh(delta, weights[i]!)
      }
      return sum(data[base]!, deltas)
    }
  },
})

function weigh(delta: Float32Array, weight: number): void {
  for (let k = 0; k < delta.length; k++) delta[k] = f(delta[k]! * weight)
}

type Walk = ReturnType<Sparsifier['walk']>

/** How each task vector is thinned out, after as many looks at all of them as that takes. */
function thinner(
  group: MergeGroup,
  { thinning, inputs }: { thinning: Thinning; inputs: readonly MergeGroup['parameters'][] },
): (Walk | undefined)[] {
  const { base, others } = placesBesideBase(group)
  const sparsifiers = inputs.map((parameters, i) =>
    sparsifierOf(group, { thinning, parameters, i }),
  )
  /** Shows those task vectors that are wanted. */
  const scan = (
    wanted: (sparsifier: Sparsifier) => boolean,
    visit: (i: number, sparsifier: Sparsifier, delta: Float32Array, at: number) => void,
  ) => {
    if (!sparsifiers.some((one) => one && wanted(one))) return
    group.scan(({ at, data }) => {
      for (const [i, sparsifier] of sparsifiers.entries())
        if (sparsifier && wanted(sparsifier))
          visit(i, sparsifier, subtract(data[others[i]!]!, data[base]!), at)
    })
  }
  for (const which of [0, 1])
    scan(
      ({ looks }) => which < looks,
      (_, sparsifier, delta) => sparsifier.look(delta, which),
    )
  const scales = inputs.map(() => 1)
  if (group.parameters.rescale === true) {
    // What is left is scaled to the sum of magnitudes that was there before.
    const walks = sparsifiers.map((sparsifier) => sparsifier?.walk())
    const [before, after] = [inputs.map(() => 0), inputs.map(() => 0)]
    scan(
      () => true,
      (i, _, delta, at) => {
        before[i] = sumOfMagnitudes(delta, before[i])
        walks[i]!(delta, at)
        after[i] = sumOfMagnitudes(delta, after[i])
      },
    )
    for (const i of inputs.keys()) {
      const [all, left] = [f(before[i]!), f(after[i]!)]
      if (all >= 1e-7 && left >= 1e-7) scales[i] = f(all / left)
    }
  }
  return sparsifiers.map((sparsifier, i) => {
    const walk = sparsifier?.walk()
    if (!walk || scales[i] === 1) return walk
    return (delta, at) => {
      walk(delta, at)
      weigh(delta, scales[i]!)
    }
  })
}

function sparsifierOf(
  group: MergeGroup,
  {
    thinning,
    parameters,
    i,
  }: { thinning: Thinning; parameters: MergeGroup['parameters']; i: number },
): Sparsifier | undefined {
  const density = numberOf(parameters, 'density')
  if (thinning === 'none' || density >= 1) return undefined
  const { dims, random } = group
  const total = dims.reduce((n, d) => n * d, 1)
  if (thinning === 'largest') return keepLargest(total, density)
  if (thinning === 'middle') return keepMiddle(total, density, numberOf(parameters, 'gamma'))
  const draw = drawAt(random, i)
  if (thinning === 'random') return keepRandom(density, draw)
  return keepByRank({ dims, density, epsilon: numberOf(parameters, 'epsilon') }, draw)
}

interface Summing {
  weights: readonly number[]
  normalize: boolean
  lambda: number
}

type Sum = (base: Float32Array, deltas: readonly Float32Array[]) => Float32Array

function plainSum({ weights, normalize, lambda }: Summing): Sum {
  const total = weights.reduce((sum, w) => f(sum + w), 0)
  const divisor = normalize && Math.abs(total) >= 1e-8 ? total : 1
  const keep = scratch()
  return (base, deltas) => {
    const mixed = keep(base.length).fill(0)
    for (const delta of deltas) add(mixed, delta)
    for (let k = 0; k < base.length; k++) base[k] = f(base[k]! + f(f(mixed[k]! / divisor) * lambda))
    return base
  }
}

function sumOfVotes({ weights, normalize, lambda }: Summing): Sum {
  const [keepSum, keepMixed, keepShare, keepDivisor] = [scratch(), scratch(), scratch(), scratch()]
  return (base, deltas) => {
    const sum = keepSum(base.length).fill(0)
    for (const delta of deltas) add(sum, delta)
    const mixed = keepMixed(base.length).fill(0)
    const divisor = keepDivisor(base.length).fill(0)
    for (const [i, delta] of deltas.entries()) {
      const share = keepShare(base.length)
      dropOpposed(delta, sum, share.fill(weights[i]!))
      add(mixed, delta)
      add(divisor, share)
    }
    if (normalize) divideWhere(mixed, divisor)
    for (let k = 0; k < base.length; k++) base[k] = f(base[k]! + f(mixed[k]! * lambda))
    return base
  }
}

/**
 * Sets what has not the sign of the sum to zero, in the vector and in its weights; of a sum of zero that is plus.
 * By bits: a branch that goes either way costs more than all the rest.
 */
function dropOpposed(delta: Float32Array, sum: Float32Array, weights: Float32Array): void {
  const [d, s, w] = [delta, sum, weights].map(
    ({ buffer, byteOffset, length }) => new Int32Array(buffer, byteOffset, length),
  ) as [Int32Array, Int32Array, Int32Array]
  for (let k = 0; k < d.length; k++) {
    const bits = d[k]!
    const isSome = ((bits & 0x7fffffff) + 0x7fffffff) >> 31
    const agrees = ~((bits ^ s[k]!) >> 31) & isSome
    d[k] = bits & agrees
    w[k] = w[k]! & agrees
  }
}

/** Divides where there is something to divide by. It writes into both. */
function divideWhere(mixed: Float32Array, divisor: Float32Array): void {
  const bits = new Int32Array(divisor.buffer, divisor.byteOffset, divisor.length)
  const ONE = 0x3f800000
  for (let k = 0; k < bits.length; k++)
    bits[k] = bits[k]! | (ONE & (((bits[k]! & 0x7fffffff) - 1) >> 31))
  for (let k = 0; k < mixed.length; k++) mixed[k] = f(mixed[k]! / divisor[k]!)
}

const plain = { thinning: 'none', vote: false, normalize: false, rescale: false } as const

export const TASK_VECTOR_METHODS: readonly MergeMethod[] = [
  taskVectors({ ...plain, name: 'task_arithmetic', reference: 'https://arxiv.org/abs/2212.04089' }),
  taskVectors({
    ...plain,
    name: 'ties',
    reference: 'https://arxiv.org/abs/2306.01708',
    thinning: 'largest',
    vote: true,
    normalize: true,
  }),
  taskVectors({
    ...plain,
    name: 'dare_linear',
    reference: 'https://arxiv.org/abs/2311.03099',
    thinning: 'random',
    rescale: true,
  }),
  taskVectors({
    ...plain,
    name: 'dare_ties',
    reference: 'https://arxiv.org/abs/2311.03099',
    thinning: 'random',
    vote: true,
    rescale: true,
  }),
  taskVectors({
    ...plain,
    name: 'della',
    reference: 'https://arxiv.org/abs/2406.11617',
    thinning: 'rank',
    vote: true,
    normalize: true,
    rescale: true,
  }),
  taskVectors({
    ...plain,
    name: 'della_linear',
    reference: 'https://arxiv.org/abs/2406.11617',
    thinning: 'rank',
    rescale: true,
  }),
  taskVectors({
    ...plain,
    name: 'breadcrumbs',
    reference: 'https://arxiv.org/abs/2312.06795',
    thinning: 'middle',
  }),
  taskVectors({
    ...plain,
    name: 'breadcrumbs_ties',
    reference: 'https://arxiv.org/abs/2312.06795',
    thinning: 'middle',
    vote: true,
  }),
]
