// What is asked for under the one word merge: models into a model, adapters into an adapter, an adapter out of a model.

import { type AdapterMergeConfig, parseAdapterMerge } from './adapter-config.ts'
import { keyOf, type MergeConfig, type ModelName, namedModels, parseMergeConfig } from './config.ts'
import { type ExtractionConfig, parseExtraction } from './extract-config.ts'
import { record } from './fields.ts'
import type { SearchSettings } from './search-settings.ts'

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

/** What it searches, where it does. */
export const searchIn = (requested: Requested): SearchSettings | undefined =>
  requested.kind === 'models'
    ? requested.merge.search
    : requested.kind === 'adapters'
      ? requested.search
      : undefined

/** What the text calls its result, and how it is made. */
export const describe = (requested: Requested): { name: string | undefined; method: string } =>
  requested.kind === 'models'
    ? { name: requested.merge.name, method: requested.merge.method.name }
    : requested.kind === 'adapters'
      ? { name: requested.name, method: requested.combination.name }
      : { name: requested.name, method: 'extraction' }
