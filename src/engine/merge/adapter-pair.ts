// One module of an adapter: combined from several adapters', or taken out of a tuned weight. What a thread computes.

import { turn } from '../export/tensor-bytes.ts'
import type { LoraPair } from '../weights/adapter.ts'
import { COMBINATIONS, combinePairs, decompose, type WeightedPair } from './combinations.ts'
import { drawing } from './draws.ts'
import { readInput } from './input.ts'
import type { PlannedInput } from './plan.ts'
import { drawAt } from './sparsify.ts'

export interface CombinedModule {
  readonly type: 'combine'
  readonly module: string
  readonly combination: string
  readonly pairs: readonly WeightedPair[]
  readonly rank: number
  readonly seed: number
  readonly density?: number
  readonly svd_clamp?: number
  readonly majority_sign_method: 'total' | 'frequency'
}

export interface ExtractedModule {
  readonly type: 'extract'
  readonly module: string
  readonly dims: readonly number[]
  readonly tuned: PlannedInput
  readonly base: PlannedInput
  /** The files hold [in, out]. */
  readonly turned: boolean
  readonly rank: number
  readonly sv_epsilon: number
}

export type AdapterModule = CombinedModule | ExtractedModule

export interface MadePair {
  readonly module: string
  readonly pair: LoraPair
  /** Of an extraction: the squares of what was learned, and of it what the pair has. */
  readonly learned?: { readonly all: number; readonly kept: number }
}

export const makePair = (work: AdapterModule): Promise<MadePair> =>
  work.type === 'combine' ? Promise.resolve(combined(work)) : extracted(work)

function combined({ module, combination, pairs, seed, ...rest }: CombinedModule): MadePair {
  const found = COMBINATIONS.get(combination)
  if (!found) throw new Error(`combination ${combination} is not known`)
  const draw = (matrix: string, adapter: number) =>
    drawAt(drawing(seed, `${module}.${matrix}`), adapter)
  const pair = combinePairs(found, pairs, { ...rest, draw })
  if (!(pair.a.every(Number.isFinite) && pair.b.every(Number.isFinite)))
    throw new Error(`${module}: the merge gives a number that is not finite`)
  return { module, pair }
}

async function extracted(work: ExtractedModule): Promise<MadePair> {
  const { module, dims, turned, rank, sv_epsilon } = work
  const delta = await difference(work)
  const [out = 0, inner = 0] = turned ? dims.toReversed() : dims
  const rows = turned ? turn(delta, inner, out) : delta
  const { a, b, values } = decompose(rows, { out, inner, rank, sv_epsilon })
  return {
    module,
    pair: { a, b, in_features: inner, out_features: out },
    learned: { all: squares(rows), kept: values.reduce((sum, value) => sum + value * value, 0) },
  }
}

/** What the tuned weight has more than its base. */
export async function difference({
  dims,
  tuned,
  base,
}: Pick<ExtractedModule, 'dims' | 'tuned' | 'base'>): Promise<Float32Array> {
  const delta = await readInput(tuned, { dims })
  const from = await readInput(base, { dims })
  for (let k = 0; k < delta.length; k++) delta[k] = delta[k]! - from[k]!
  return delta
}

export function squares(values: Float32Array): number {
  let sum = 0
  for (let k = 0; k < values.length; k++) sum += values[k]! * values[k]!
  return sum
}
