// A merge as it is asked for, in mergekit's words: what is merged, by which method, with which parameters.
// Knows names of models only; which files they are is said when it is planned.

import { bad, type Json, list, only, record, text, whole } from './fields.ts'
import type { MergeMethod } from './method.ts'
import { MERGE_METHODS } from './methods.ts'
import type { Choice } from './search-points.ts'
import { readSearch, type SearchSettings } from './search-settings.ts'
import { readSetting, type Settings } from './settings.ts'

/** A model's name, with that of an adapter over it or none. */
export interface ModelName {
  readonly model: string
  readonly adapter?: string
}

export interface Source {
  readonly model: ModelName
  /** First layer, and the one after the last; absent: all. */
  readonly layers?: readonly [number, number]
  readonly parameters: Settings
}

export interface Slice {
  readonly sources: readonly Source[]
  readonly base_model?: ModelName
  readonly parameters: Settings
}

export const MERGE_DTYPES = ['float32', 'float16', 'bfloat16'] as const
export type MergeDtype = (typeof MERGE_DTYPES)[number]

/** Where a token's embedding comes from, instead of what the tokenizers say. */
export interface TokenSource {
  readonly source?: { model: ModelName; token?: string; token_id?: number } | 'zero'
  readonly force: boolean
}

export interface TokenizerSettings {
  readonly source: 'base' | 'union' | ModelName
  readonly tokens: Readonly<Record<string, TokenSource>>
  readonly pad_to_multiple_of?: number
}

export interface MergeConfig {
  readonly method: MergeMethod
  /** One, but where layers are stacked. */
  readonly slices: readonly Slice[]
  readonly base_model?: ModelName
  readonly parameters: Settings
  /** What inputs are rounded to before they are merged. */
  readonly dtype?: MergeDtype
  readonly out_dtype?: MergeDtype
  readonly tokenizer?: TokenizerSettings
  readonly chat_template?: string
  /** A classifier's head: merged as any tensor, or taken from one model. */
  readonly head: 'merge' | 'base' | ModelName
  /** Of random methods. */
  readonly seed: number
  /** Bytes of a file of weights at most. */
  readonly max_shard_size: number
  /** What the text calls its result, where it has several. */
  readonly name?: string
  /** Weights or a density to be chosen by a loss, or by an eval. */
  readonly search?: SearchSettings
}

const KEYS = [
  'name',
  'merge_method',
  'models',
  'slices',
  'modules',
  'base_model',
  'parameters',
  'dtype',
  'out_dtype',
  'tokenizer_source',
  'tokenizer',
  'chat_template',
  'classification_head',
  'random_seed',
  'max_shard_size',
  'search',
]

/** Checks what a merge's text says. Throws an ApiError that names the field. */
export function parseMergeConfig(value: unknown): MergeConfig {
  const root = record(value, 'config')
  only(root, KEYS, '')
  const method = methodOf(root.merge_method)
  const base_model = root.base_model == null ? undefined : modelName(root.base_model, 'base_model')
  const tokenizer = tokenizerOf(root)
  const dtype = dtypeOf(root, 'dtype')
  const out_dtype = dtypeOf(root, 'out_dtype')
  const config: MergeConfig = {
    method,
    slices: slicesOf(root, base_model),
    ...(base_model && { base_model }),
    parameters: settingsOf(root.parameters, 'parameters'),
    ...(dtype && { dtype }),
    ...(out_dtype && { out_dtype }),
    ...(tokenizer && { tokenizer }),
    ...(root.chat_template != null && { chat_template: text(root.chat_template, 'chat_template') }),
    head: headOf(root.classification_head),
    seed: whole(root.random_seed ?? 0, 'random_seed'),
    max_shard_size: sizeOf(root.max_shard_size ?? 5_000_000_000),
    ...(typeof root.name === 'string' && { name: root.name }),
    ...(root.search != null && { search: searchOf(root, method) }),
  }
  for (const [i, slice] of config.slices.entries()) checkSources(config, slice, i)
  return config
}

function searchOf(root: Json, { name, parameters }: MergeMethod): SearchSettings {
  const search = readSearch(root.search, { name, hasDensity: 'density' in parameters })
  if (search.weights && !('weight' in parameters))
    throw bad('search.weights', `The method '${name}' has no weights`)
  if (root.models == null) throw bad('search', 'Expected models, not layers of models')
  return search
}

/** Weights and density as they were sent, where they are numbers: what a search begins with. */
export function givenOf(config: MergeConfig): Choice {
  const sources = config.slices[0]!.sources.filter((source) => isWeighted(config, source))
  const numberOf = (source: Source | undefined, key: string) => {
    const said = source?.parameters[key] ?? config.parameters[key]
    return typeof said === 'number' ? said : undefined
  }
  const density = numberOf(sources[0], 'density')
  return {
    weights: sources.map((source) => numberOf(source, 'weight') ?? 1),
    ...(density !== undefined && { density }),
  }
}

/** The merge with what its search has chosen: weights of the inputs that have one, a density; the rest as it was sent. */
export function withChosen(
  { search, ...config }: MergeConfig,
  { weights, density }: Choice,
): MergeConfig {
  let next = 0
  const [slice] = config.slices
  const sources = slice!.sources.map((source) => ({
    ...source,
    parameters: {
      ...source.parameters,
      ...(search?.weights && isWeighted(config, source) && { weight: weights[next++]! }),
      ...(search?.density && density !== undefined && { density }),
    },
  }))
  return { ...config, slices: [{ ...slice!, sources }] }
}

/** Whether an input has a weight: a base counts itself where the method takes it as any other. */
export const isWeighted = (
  { method, base_model }: Pick<MergeConfig, 'method' | 'base_model'>,
  { model }: Source,
): boolean =>
  method.base === 'ignored' || base_model === undefined || keyOf(model) !== keyOf(base_model)

/** Every model that the merge names, each once, in the order of its text, the base first. */
export function namedModels(config: MergeConfig): ModelName[] {
  const all = [
    config.base_model,
    ...config.slices.flatMap((slice) => [
      ...slice.sources.map(({ model }) => model),
      slice.base_model,
    ]),
    typeof config.tokenizer?.source === 'object' ? config.tokenizer.source : undefined,
    typeof config.head === 'object' ? config.head : undefined,
    ...Object.values(config.tokenizer?.tokens ?? {}).map(({ source }) =>
      typeof source === 'object' ? source.model : undefined,
    ),
  ]
  const seen = new Map<string, ModelName>()
  for (const name of all) if (name && !seen.has(keyOf(name))) seen.set(keyOf(name), name)
  return [...seen.values()]
}

/** A model's name as one text: `model+adapter`. */
export const keyOf = ({ model, adapter }: ModelName): string =>
  adapter === undefined ? model : `${model}+${adapter}`

function slicesOf(root: Json, base: ModelName | undefined): Slice[] {
  const { models, slices } = theOne(root)
  if (models !== undefined) {
    const sources = list(models, 'models').map((item, i) => {
      const source = record(item, `models[${i}]`)
      only(source, ['model', 'parameters'], `models[${i}].`)
      return {
        model: modelName(source.model, `models[${i}].model`),
        parameters: settingsOf(source.parameters, `models[${i}].parameters`),
      }
    })
    return [{ sources: withBase(sources, base), parameters: {} }]
  }
  return list(slices, 'slices').map((item, i) =>
    sliceOf(record(item, `slices[${i}]`), `slices[${i}]`),
  )
}

/** `models`, `slices`, or one of the two under the one module that a language model has. */
function theOne(root: Json): { models?: unknown; slices?: unknown } {
  const given = ['models', 'slices', 'modules'].filter((key) => root[key] != null)
  if (given.length !== 1)
    throw bad('models', "Expected one of 'models', 'slices' and 'modules'", 'invalid_value')
  if (root.modules == null) return root
  const modules = Object.values(record(root.modules, 'modules'))
  if (modules.length !== 1) throw bad('modules', 'Expected one module', 'invalid_value')
  return theOne(record(modules[0], 'modules'))
}

function sliceOf(slice: Json, param: string): Slice {
  only(slice, ['sources', 'base_model', 'parameters', 'residual_weight'], `${param}.`)
  const sources = list(slice.sources, `${param}.sources`).map((item, i) => {
    const at = `${param}.sources[${i}]`
    const source = record(item, at)
    only(source, ['model', 'layer_range', 'parameters'], `${at}.`)
    const range = list(source.layer_range, `${at}.layer_range`)
    const [from, to] = range.map((n) => whole(n, `${at}.layer_range`))
    if (range.length !== 2 || from === undefined || to === undefined || to <= from)
      throw bad(`${at}.layer_range`, 'Expected the first layer and the one after the last')
    return {
      model: modelName(source.model, `${at}.model`),
      layers: [from, to] as const,
      parameters: settingsOf(source.parameters, `${at}.parameters`),
    }
  })
  const lengths = new Set(sources.map(({ layers: [from, to] }) => to - from))
  if (lengths.size > 1)
    throw bad(`${param}.sources`, 'All sources of a slice must have the same number of layers')
  return {
    sources,
    ...(slice.base_model != null && {
      base_model: modelName(slice.base_model, `${param}.base_model`),
    }),
    parameters: settingsOf(slice.parameters, `${param}.parameters`),
  }
}

/** The base is an input too, wherever it is named. */
const withBase = (sources: readonly Source[], base: ModelName | undefined): readonly Source[] =>
  !base || sources.some(({ model }) => keyOf(model) === keyOf(base))
    ? sources
    : [...sources, { model: base, parameters: {} }]

function checkSources({ method, base_model }: MergeConfig, slice: Slice, i: number): void {
  const base = slice.base_model ?? base_model
  const names = slice.sources.map(({ model }) => keyOf(model))
  if (new Set(names).size !== names.length)
    throw bad(`slices[${i}].sources`, `A model is named twice: ${names.join(', ')}`)
  const has = base !== undefined && names.includes(keyOf(base))
  if (method.base === 'required' && !has)
    throw bad('base_model', `The method '${method.name}' needs a base model among its inputs`)
  const counted = method.base === 'ignored' || !has ? names.length : names.length - 1
  const { min, max = Number.POSITIVE_INFINITY } = method.others
  if (counted < min || counted > max) {
    const wanted =
      min === max
        ? `${min}`
        : max < Number.POSITIVE_INFINITY
          ? `${min} to ${max}`
          : `at least ${min}`
    const beside = method.base === 'ignored' ? '' : ' beside the base'
    throw bad(
      'models',
      `The method '${method.name}' takes ${wanted} models${beside}, found ${counted}`,
    )
  }
}

function methodOf(value: unknown): MergeMethod {
  const method = MERGE_METHODS.get(String(value))
  if (method) return method
  throw bad(
    'merge_method',
    `The method ${JSON.stringify(value)} is not known. Known are: ${[...MERGE_METHODS.keys()].join(', ')}`,
    'unsupported_method',
  )
}

/** `model`, `model+adapter`, or mergekit's long form. */
export function modelName(value: unknown, param: string): ModelName {
  if (typeof value === 'object' && value !== null) {
    const { model, lora } = value as { model?: unknown; lora?: unknown }
    const path = (of: unknown) =>
      typeof of === 'object' && of !== null ? (of as { path?: unknown }).path : of
    const name = text(path(model), `${param}.model`)
    return lora == null
      ? { model: name }
      : { model: name, adapter: text(path(lora), `${param}.lora`) }
  }
  const parts = text(value, param).split('+')
  if (parts.length > 2 || parts.some((part) => part.trim() === ''))
    throw bad(param, `Expected 'model' or 'model+adapter', found ${JSON.stringify(value)}`)
  const [model, adapter] = parts.map((part) => part.trim()) as [string, string?]
  return adapter === undefined ? { model } : { model, adapter }
}

function tokenizerOf(root: Json): TokenizerSettings | undefined {
  if (root.tokenizer_source != null && root.tokenizer != null)
    throw bad('tokenizer', "'tokenizer_source' and 'tokenizer' cannot both be given")
  const source = (value: unknown, param: string) =>
    value === 'base' || value === 'union' ? value : modelName(value, param)
  if (root.tokenizer_source != null)
    return { source: source(root.tokenizer_source, 'tokenizer_source'), tokens: {} }
  if (root.tokenizer == null) return undefined
  const tokenizer = record(root.tokenizer, 'tokenizer')
  only(tokenizer, ['source', 'tokens', 'pad_to_multiple_of'], 'tokenizer.')
  const tokens = Object.entries(record(tokenizer.tokens ?? {}, 'tokenizer.tokens')).map(
    ([token, value]) => [
      token,
      tokenSource(record(value, 'tokenizer.tokens'), `tokenizer.tokens.${token}`),
    ],
  )
  const pad = tokenizer.pad_to_multiple_of
  return {
    source: source(tokenizer.source ?? 'union', 'tokenizer.source'),
    tokens: Object.fromEntries(tokens),
    ...(pad != null && { pad_to_multiple_of: whole(pad, 'tokenizer.pad_to_multiple_of') }),
  }
}

function tokenSource(value: Json, param: string): TokenSource {
  only(value, ['source', 'force'], `${param}.`)
  const force = value.force === true
  if (value.source == null) return { force }
  const kind = typeof value.source === 'object' ? (value.source as Json).kind : undefined
  if (kind === 'zero') return { source: 'zero', force }
  if (kind !== 'model_token')
    return { source: { model: modelName(value.source, `${param}.source`) }, force }
  const { model, token, token_id } = value.source as Json
  if ((token == null) === (token_id == null))
    throw bad(`${param}.source`, "Expected one of 'token' and 'token_id'")
  return {
    source: {
      model: modelName(model, `${param}.source.model`),
      ...(token != null && { token: text(token, `${param}.source.token`) }),
      ...(token_id != null && { token_id: whole(token_id, `${param}.source.token_id`) }),
    },
    force,
  }
}

function headOf(value: unknown): MergeConfig['head'] {
  if (value == null || value === 'merge') return 'merge'
  return value === 'base' ? 'base' : modelName(value, 'classification_head')
}

function dtypeOf(root: Json, key: 'dtype' | 'out_dtype'): MergeDtype | undefined {
  if (root[key] == null) return undefined
  const name = String(root[key]).replace(/^torch\./, '')
  const found = MERGE_DTYPES.find((dtype) => dtype === name)
  if (found) return found
  throw bad(key, `Expected ${MERGE_DTYPES.join(', ')}, found ${JSON.stringify(root[key])}`)
}

/** Bytes, or a number with K, M, G or B (10^9) behind it, as mergekit's `--out-shard-size`. */
function sizeOf(value: unknown): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGB]?)B?$/i.exec(String(value))
  const unit = { '': 1, K: 1e3, M: 1e6, G: 1e9, B: 1e9 }[match?.[2]?.toUpperCase() ?? '']
  const bytes = match && unit ? Math.floor(Number(match[1]) * unit) : 0
  if (bytes > 0) return bytes
  throw bad('max_shard_size', `Expected a size as 5GB, found ${JSON.stringify(value)}`)
}

function settingsOf(value: unknown, param: string): Settings {
  if (value == null) return {}
  return Object.fromEntries(
    Object.entries(record(value, param)).map(([name, setting]) => [
      name,
      readSetting(setting, `${param}.${name}`),
    ]),
  )
}
