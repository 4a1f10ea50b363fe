// An adapter that is to be made, settled before any work: its modules, and what each is made of.

import { basename, dirname } from 'node:path'
import { invalidRequest } from '../../errors.ts'
import { elements } from '../tensor.ts'
import { type Adapter, type AdapterConfig, readAdapter } from '../weights/adapter.ts'
import type { AdapterMergeConfig } from './adapter-config.ts'
import type { AdapterModule, CombinedModule } from './adapter-pair.ts'
import type { WeightedPair } from './combinations.ts'
import { keyOf } from './config.ts'
import type { ExtractionConfig } from './extract-config.ts'
import { type ModelFiles, type OpenModel, openModel } from './models.ts'
import { isTurned, LAYER, loraOf, type PlannedInput } from './plan.ts'

export interface AdapterPlan {
  readonly modules: readonly AdapterModule[]
  readonly config: AdapterConfig
  /** What lies beside the matrices: one adapter's head, and what its file says of it. */
  readonly beside: Pick<Adapter, 'saved' | 'metadata'>
  /** Tensors that an adapter cannot hold: their differences are looked at only. */
  readonly others: readonly {
    name: string
    dims: readonly number[]
    tuned: PlannedInput
    base: PlannedInput
  }[]
  readonly bytes: number
}

type Files = Readonly<Record<string, ModelFiles>>

/** Throws an ApiError that names the first module that does not fit. */
export async function planCombination(
  config: AdapterMergeConfig,
  files: Files,
): Promise<AdapterPlan> {
  const opened = await Promise.all(
    config.adapters.map(async ({ name, weight }) => ({
      key: keyOf(name),
      weight,
      adapter: await openAdapter(keyOf(name), files),
    })),
  )
  const { combination } = config
  const ranks = opened.map(({ adapter }) => adapter.config.r)
  if (combination.of === 'matrices' && new Set(ranks).size > 1)
    throw doesNotFit(
      `the ranks are ${ranks.join(', ')}, and '${combination.name}' takes one rank only; 'cat', 'svd' and the combinations that end in '_svd' take several`,
      'adapters',
    )
  const r =
    combination.of === 'ranks'
      ? ranks.reduce((sum, rank) => sum + rank, 0)
      : combination.of === 'product'
        ? (config.svd_rank ?? Math.max(...ranks))
        : ranks[0]!
  const heads = opened.filter(({ adapter }) => (adapter.saved?.size ?? 0) > 0)
  if (heads.length > 1)
    throw doesNotFit(
      `${heads.map(({ key }) => key).join(' and ')} have each trained modules whole (modules_to_save), which cannot be weighted`,
      'adapters',
    )
  const modules = new Map<string, WeightedPair[]>()
  for (const [at, { key, weight, adapter }] of opened.entries())
    for (const [module, pair] of adapter.pairs) {
      const found = modules.get(module) ?? []
      const first = found[0]?.pair
      if (first && String(shapeOf(first)) !== String(shapeOf(pair)))
        throw doesNotFit(
          `the module ${module} is [${shapeOf(first)}] in ${opened[0]!.key} and [${shapeOf(pair)}] in ${key}`,
          'adapters',
        )
      const { r, lora_alpha, use_rslora } = adapter.config
      const scaling = lora_alpha / (use_rslora ? Math.sqrt(r) : r)
      modules.set(module, [...found, { pair, r, scaling, weight, adapter: at }])
    }
  const rest = {
    combination: combination.name,
    rank: r,
    seed: config.seed,
    majority_sign_method: config.majority_sign_method,
    ...(config.density !== undefined && { density: config.density }),
    ...(config.svd_clamp !== undefined && { svd_clamp: config.svd_clamp }),
  }
  const [first] = opened
  const { exclude_modules: _, modules_to_save: __, ...shared } = first!.adapter.config
  const excluded = (first!.adapter.config.exclude_modules ?? []).filter((name) =>
    opened.every(({ adapter }) => adapter.config.exclude_modules?.includes(name)),
  )
  const head = heads[0]?.adapter
  const works = [...modules].map(
    ([module, pairs]): CombinedModule => ({ type: 'combine', module, pairs, ...rest }),
  )
  return {
    modules: works,
    config: {
      ...shared,
      ...atRank(r),
      target_modules: [
        ...new Set(opened.flatMap(({ adapter }) => adapter.config.target_modules)),
      ].sort(),
      ...(excluded.length > 0 && { exclude_modules: excluded }),
      ...(head?.config.modules_to_save && { modules_to_save: head.config.modules_to_save }),
      ...(head?.config.task_type && { task_type: head.config.task_type }),
    },
    beside: besideOf(head ?? first!.adapter),
    others: [],
    bytes: works.reduce((n, { pairs: [one] }) => n + bytesOf(shapeOf(one!.pair), r), 0),
  }
}

/** The module with other weights of the adapters, and another density. */
export const weighted = (
  module: AdapterModule,
  weights: readonly number[],
  density: number | undefined,
): AdapterModule =>
  module.type === 'extract'
    ? module
    : {
        ...module,
        pairs: module.pairs.map((pair) => ({ ...pair, weight: weights[pair.adapter]! })),
        ...(density !== undefined && { density }),
      }

/** The scaling of the result is 1: it is in the matrices. */
const atRank = (r: number) => ({ r, lora_alpha: r, use_rslora: false, use_dora: false })

const besideOf = ({ saved, metadata = {} }: Adapter): AdapterPlan['beside'] => ({
  ...(saved && { saved }),
  // What it answers stays true; what else its file says is of its training.
  ...(metadata.luthier !== undefined && { metadata: { luthier: metadata.luthier } }),
})

const shapeOf = ({ in_features, out_features }: { in_features: number; out_features: number }) => [
  out_features,
  in_features,
]

const bytesOf = ([out = 0, inner = 0]: readonly number[], r: number) => 4 * r * (out + inner)

async function openAdapter(key: string, files: Files): Promise<Adapter> {
  const file = files[key]?.adapter
  if (file === undefined) throw doesNotFit(`${key} is a whole model, not an adapter`, 'adapters')
  const adapter = await readAdapter(file)
  if (adapter.config.use_dora)
    throw doesNotFit(
      `${key} is a DoRA adapter, whose lengths belong to its own weights; merge it into its base instead`,
      'adapters',
    )
  for (const [module, { a, b }] of adapter.pairs)
    if (!(a.every(Number.isFinite) && b.every(Number.isFinite)))
      throw doesNotFit(`${key}: ${module} holds NaN or infinity`, 'adapters')
  return adapter
}

/** Throws where the two are no models of one shape, or none of them differ where it is looked. */
export async function planExtraction(config: ExtractionConfig, files: Files): Promise<AdapterPlan> {
  const open = (name: ExtractionConfig['model']) => {
    const found = files[keyOf(name)]
    if (!found) throw new Error(`${keyOf(name)}: nothing is known of its files`)
    return openModel(name, found)
  }
  const tuned = await open(config.model)
  const base = await open(config.base_model)
  if (base.checkpoint.config.encoder)
    throw doesNotFit('adapters are extracted from decoders only', 'extract_adapter')
  for (const name of tuned.tensors.keys())
    if (!base.tensors.has(name))
      throw doesNotFit(`the tensor ${name} is missing in ${base.key}`, 'extract_adapter')
  const modules: AdapterModule[] = []
  const others: AdapterPlan['others'][number][] = []
  const targets = new Set<string>()
  for (const [name, tensor] of base.tensors) {
    const own = tuned.tensors.get(name)
    if (!own) throw doesNotFit(`the tensor ${name} is missing in ${tuned.key}`, 'extract_adapter')
    const { dims } = tensor
    if (String(own.dims) !== String(dims))
      throw doesNotFit(
        `the tensor ${name} has the shape [${dims}] in ${base.key} and [${own.dims}] in ${tuned.key}`,
        'extract_adapter',
      )
    const pair = { tuned: inputOf(tuned, name), base: inputOf(base, name) }
    const module = name.replace(/\.weight$/, '')
    const last = module.slice(module.lastIndexOf('.') + 1)
    const { target_modules } = config
    const fits =
      dims.length === 2 && LAYER.test(name) && (!target_modules || target_modules.includes(last))
    if (!fits) {
      others.push({ name, dims, ...pair })
      continue
    }
    targets.add(last)
    modules.push({
      type: 'extract',
      module,
      dims,
      ...pair,
      turned: isTurned(base.checkpoint),
      rank: Math.min(rankFor(module, config), ...dims),
      sv_epsilon: config.sv_epsilon,
    })
  }
  const missing = config.target_modules?.find((target) => !targets.has(target))
  if (missing !== undefined || modules.length === 0)
    throw doesNotFit(`${base.key} has no ${missing ?? 'matrices in layers'}`, 'target_modules')
  const r = Math.max(...modules.map((work) => (work.type === 'extract' ? work.rank : 0)))
  return {
    modules,
    config: {
      ...atRank(r),
      target_modules: [...targets].sort(),
      lora_dropout: 0,
      base_model_name_or_path: nameOf(config.base_model.model),
      ...(isTurned(base.checkpoint) && { fan_in_fan_out: true }),
    },
    beside: {},
    others,
    bytes: modules.reduce((n, work) => n + ('dims' in work ? bytesOf(work.dims, r) : 0), 0),
  }
}

const inputOf = (model: OpenModel, name: string): PlannedInput => {
  const tensor = model.tensors.get(name)!
  return { tensor, isBase: false, parameters: {}, ...loraOf(model, name, tensor) }
}

function rankFor(module: string, { rank_pattern, max_rank }: ExtractionConfig): number {
  const found = Object.entries(rank_pattern).find(
    ([name]) => module === name || module.endsWith(`.${name}`),
  )
  return found ? found[1] : max_rank
}

/** A path of this machine is nobody else's. */
const nameOf = (model: string) => (dirname(model) === '.' ? model : basename(model))

const doesNotFit = (why: string, param: string) =>
  invalidRequest(`The adapter cannot be made: ${why}.`, { param, code: 'models_do_not_fit' })

/** How many numbers a module has. */
export const sizeOf = (work: AdapterModule): number =>
  work.type === 'extract'
    ? elements(work.dims)
    : work.pairs[0]!.pair.in_features * work.pairs[0]!.pair.out_features
