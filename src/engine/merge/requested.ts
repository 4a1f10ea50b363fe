// What is asked for under the one word merge: models into a model, adapters into an adapter, an adapter out of a model.

import { type AdapterMergeConfig, parseAdapterMerge } from './adapter-config.ts'
import {
  givenOf,
  keyOf,
  type MergeConfig,
  type ModelName,
  namedModels,
  parseMergeConfig,
  withChosen,
} from './config.ts'
import { type ExtractionConfig, parseExtraction } from './extract-config.ts'
import { record } from './fields.ts'
import type { Choice, Searched } from './search-points.ts'

export type Requested =
  | { readonly kind: 'models'; readonly merge: MergeConfig }
  | AdapterMergeConfig
  | ExtractionConfig

/** Tells the three apart by the field that only one of them has. Throws an ApiError that names what is wrong. */
export function parseRequested(value: unknown): Requested {
  const root = record(value, 'config')
  if (root.adapters !== undefined) return parseAdapterMerge(root)
  if (root.extract_adapter !== undefined) return parseExtraction(root)
  return { kind: 'models', merge: parseMergeConfig(root) }
}

/** Every model that it names, each once. */
export function namesIn(requested: Requested): ModelName[] {
  if (requested.kind === 'models') return namedModels(requested.merge)
  const all =
    requested.kind === 'adapters'
      ? [
          ...requested.adapters.map(({ name }) => name),
          ...(requested.base_model ? [requested.base_model] : []),
        ]
      : [requested.model, requested.base_model]
  return [...new Map(all.map((name) => [keyOf(name), name])).values()]
}

/** What it searches, and where that begins; undefined where nothing is searched. */
export function searchedIn(requested: Requested): Searched | undefined {
  if (requested.kind === 'extraction') return undefined
  if (requested.kind === 'models') {
    const { search, seed } = requested.merge
    return search && { search, given: givenOf(requested.merge), seed }
  }
  const { search, seed, adapters, density } = requested
  const weights = adapters.map(({ weight }) => weight)
  return search && { search, given: { weights, ...(density !== undefined && { density }) }, seed }
}

/** What is left to be made once a search has chosen. */
export function settled(requested: Requested, choice: Choice): Requested {
  if (requested.kind === 'extraction') return requested
  if (requested.kind === 'models')
    return { kind: 'models', merge: withChosen(requested.merge, choice) }
  const { search: _, ...config } = requested
  const { weights, density } = choice
  return {
    ...config,
    adapters: config.adapters.map(({ name }, i) => ({ name, weight: weights[i]! })),
    ...(density !== undefined && { density }),
  }
}

/** What the text calls its result, and how it is made. */
export const describe = (requested: Requested): { name: string | undefined; method: string } =>
  requested.kind === 'models'
    ? { name: requested.merge.name, method: requested.merge.method.name }
    : requested.kind === 'adapters'
      ? { name: requested.name, method: requested.combination.name }
      : { name: requested.name, method: 'extraction' }
