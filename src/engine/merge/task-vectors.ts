// Task arithmetic and its kin: what each model adds to the base, thinned out, weighted, put to the vote of signs.

import { baseAndOthers, type MergeGroup, type MergeMethod, numberOf } from './method.ts'
import type { ParameterSpec } from './settings.ts'
import { drawFor, keepByRank, keepLargest, keepMiddle, keepRandom, rescaled } from './sparsify.ts'

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
  ...(thinning === 'none' && { elementwise: true }),
  merge(group) {
    const { base, others } = baseAndOthers(group)
    for (const [i, { data, parameters }] of others.entries()) {
      for (let k = 0; k < data.length; k++) data[k] = data[k]! - base[k]!
      thin(group, data, { i, thinning, parameters })
      const weight = f(numberOf(parameters, 'weight'))
      for (let k = 0; k < data.length; k++) data[k] = data[k]! * weight
    }
    const deltas = others.map(({ data }) => data)
    const weights = others.map(({ parameters }) => f(numberOf(parameters, 'weight')))
    const sum = vote ? sumOfVotes : plainSum
    return sum(base, deltas, {
      weights,
      normalize: group.parameters.normalize === true,
      lambda: f(numberOf(group.parameters, 'lambda')),
    })
  },
})

function thin(
  group: MergeGroup,
  delta: Float32Array,
  {
    i,
    thinning,
    parameters,
  }: { i: number; thinning: Thinning; parameters: MergeGroup['parameters'] },
): void {
  const density = numberOf(parameters, 'density')
  if (thinning === 'none' || density >= 1) return
  rescaled(delta, group.parameters.rescale === true, () => {
    if (thinning === 'largest') keepLargest(delta, density)
    else if (thinning === 'middle') keepMiddle(delta, density, numberOf(parameters, 'gamma'))
    else if (thinning === 'random') keepRandom(delta, density, drawFor(group, i))
    else {
      const epsilon = numberOf(parameters, 'epsilon')
      keepByRank(delta, { dims: group.dims, density, epsilon }, drawFor(group, i))
    }
  })
}

interface Summing {
  weights: readonly number[]
  normalize: boolean
  lambda: number
}

function plainSum(
  base: Float32Array,
  deltas: readonly Float32Array[],
  { weights, normalize, lambda }: Summing,
): Float32Array {
  const total = weights.reduce((sum, w) => f(sum + w), 0)
  const divisor = normalize && Math.abs(total) >= 1e-8 ? total : 1
  for (let k = 0; k < base.length; k++) {
    let mixed = 0
    for (let i = 0; i < deltas.length; i++) mixed = f(mixed + deltas[i]![k]!)
    base[k] = base[k]! + f(f(mixed / divisor) * lambda)
  }
  return base
}

function sumOfVotes(
  base: Float32Array,
  deltas: readonly Float32Array[],
  { weights, normalize, lambda }: Summing,
): Float32Array {
  for (let k = 0; k < base.length; k++) {
    let sum = 0
    for (let i = 0; i < deltas.length; i++) sum = f(sum + deltas[i]![k]!)
    const majority = sum >= 0 ? 1 : -1
    let mixed = 0
    let divisor = 0
    for (let i = 0; i < deltas.length; i++) {
      const delta = deltas[i]![k]!
      if (Math.sign(delta) !== majority) continue
      mixed = f(mixed + delta)
      divisor = f(divisor + weights[i]!)
    }
    if (normalize && divisor !== 0) mixed = f(mixed / divisor)
    base[k] = base[k]! + f(mixed * lambda)
  }
  return base
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
