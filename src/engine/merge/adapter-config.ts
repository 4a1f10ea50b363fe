// A merge of adapters as it is asked for, in the words of PEFT's `add_weighted_adapter`.
// Knows names only; which files they are is said when it is done.

import { COMBINATIONS, type Combination } from './combinations.ts'
import { type ModelName, modelName } from './config.ts'
import { bad, type Json, list, number, only, text, whole } from './fields.ts'
import { readSearch, type SearchSettings } from './search-settings.ts'

export interface AdapterMergeConfig {
  readonly kind: 'adapters'
  readonly combination: Combination
  readonly adapters: readonly { readonly name: ModelName; readonly weight: number }[]
  readonly density?: number
  readonly majority_sign_method: 'total' | 'frequency'
  /** Of the result; absent: the highest of the adapters'. */
  readonly svd_rank?: number
  readonly svd_clamp?: number
  /** Of random combinations. */
  readonly seed: number
  readonly name?: string
  /** What they are adapters of; a search needs it where the adapters do not say it. */
  readonly base_model?: ModelName
  readonly search?: SearchSettings
}

const KEYS = [
  'name',
  'adapters',
  'weights',
  'combination_type',
  'svd_rank',
  'svd_clamp',
  'density',
  'majority_sign_method',
  'random_seed',
  'base_model',
  'search',
]

/** Checks what was sent. Throws an ApiError that names the field. */
export function parseAdapterMerge(root: Json): AdapterMergeConfig {
  only(root, KEYS, '')
  const names = list(root.adapters, 'adapters').map((name, i) => text(name, `adapters[${i}]`))
  const weights = list(root.weights, 'weights').map((value, i) => number(value, `weights[${i}]`))
  if (weights.length !== names.length)
    throw bad('weights', `Expected ${names.length}, one for each adapter, found ${weights.length}`)
  const type = root.combination_type ?? 'svd'
  const asked = COMBINATIONS.get(String(type))
  if (!asked)
    throw bad(
      'combination_type',
      `${JSON.stringify(type)} is not known. Known are: ${[...COMBINATIONS.keys()].join(', ')}`,
      'unsupported_method',
    )
  // PEFT's: one adapter alone can only be weighted.
  const combination = names.length === 1 ? COMBINATIONS.get('linear')! : asked
  if (asked.pruning !== 'none' && root.density == null)
    throw bad('density', `The combination '${asked.name}' needs it`, 'missing_required_parameter')
  const density = root.density == null ? undefined : number(root.density, 'density')
  if (density !== undefined && !(density > 0 && density <= 1))
    throw bad('density', `Expected a number above 0 and at most 1, found ${density}`)
  const svd_clamp = root.svd_clamp == null ? undefined : number(root.svd_clamp, 'svd_clamp')
  if (svd_clamp !== undefined && !(svd_clamp > 0 && svd_clamp <= 1))
    throw bad('svd_clamp', `Expected a quantile above 0 and at most 1, found ${svd_clamp}`)
  const method = root.majority_sign_method ?? 'total'
  if (method !== 'total' && method !== 'frequency')
    throw bad('majority_sign_method', "Expected 'total' or 'frequency'")
  return {
    kind: 'adapters',
    combination,
    adapters: names.map((model, i) => ({ name: { model }, weight: weights[i]! })),
    majority_sign_method: method,
    seed: whole(root.random_seed ?? 0, 'random_seed'),
    ...(density !== undefined && { density }),
    ...(root.svd_rank != null && { svd_rank: rank(root.svd_rank, 'svd_rank') }),
    ...(svd_clamp !== undefined && { svd_clamp }),
    ...(typeof root.name === 'string' && { name: root.name }),
    ...(root.base_model != null && { base_model: modelName(root.base_model, 'base_model') }),
    ...(root.search != null && {
      search: readSearch(root.search, {
        name: combination.name,
        hasDensity: combination.pruning !== 'none',
      }),
    }),
  }
}

/** A whole number of at least 1, and no more than any adapter has. */
export function rank(value: unknown, param: string): number {
  const found = whole(value, param)
  if (found >= 1 && found <= 4096) return found
  throw bad(param, `Expected a rank from 1 to 4096, found ${found}`)
}
