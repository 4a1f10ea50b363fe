// LoRA (arXiv 2106.09685) as one flat vector: what trains is a single input of the graph, and so is its gradient.

import { input, type Value } from '../graph/graph.ts'
import { concat, reshape, slice } from '../graph/ops/shape.ts'
import { uniform } from '../random.ts'
import { float32, type HostTensor } from '../tensor.ts'
import type { Adapter, LoraPair } from '../weights/adapter.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { Lora } from './weights.ts'

export interface LoraConfig {
  readonly rank: number
  readonly alpha: number
  /** Projections by their last name: `q_proj`. */
  readonly target_modules: readonly string[]
}

/** Where one projection's A [rank, in] and B [out, rank] lie in the flat vector. */
export interface LoraModule {
  /** `model.layers.0.self_attn.q_proj` */
  readonly name: string
  readonly in: number
  readonly out: number
  readonly a: number
  readonly b: number
}

export interface LoraLayout {
  readonly config: LoraConfig
  readonly modules: readonly LoraModule[]
  /** Elements of the flat vector. */
  readonly parameters: number
}

/**
 * The layout of an adapter over a checkpoint: every 2-D `….<target>.weight` in the order of layers and targets.
 * Throws where a target names no projection.
 */
export function loraLayout(weights: MappedWeights, config: LoraConfig): LoraLayout {
  const modules: LoraModule[] = []
  let parameters = 0
  for (const target of config.target_modules) {
    const suffix = `.${target}.weight`
    const found = [...weights.tensors.values()]
      .filter((t) => t.name.endsWith(suffix) && t.dims.length === 2)
      .map((t) => ({ name: t.name.slice(0, -'.weight'.length), dims: t.dims }))
      .sort((x, y) => layerOf(x.name) - layerOf(y.name))
    if (found.length === 0) throw new Error(`target_modules: the model has no ${target}`)
    for (const { name, dims } of found) {
      const [out, inner] = [dims[0]!, dims[1]!]
      const a = parameters
      const b = a + config.rank * inner
      parameters = b + out * config.rank
      modules.push({ name, in: inner, out, a, b })
    }
  }
  return { config, modules, parameters }
}

const layerOf = (name: string): number => Number(/\.(\d+)\./.exec(name)?.[1] ?? 0)

/** A fresh adapter as PEFT makes it: A uniform in ±1/√in (Kaiming with a = √5), B zero. */
export function initialAdapter({ config, modules, parameters }: LoraLayout, seed: number) {
  const flat = new Float32Array(parameters)
  for (const m of modules) {
    const bound = 1 / Math.sqrt(m.in)
    for (let i = m.a; i < m.a + config.rank * m.in; i++)
      flat[i] = (2 * uniform(seed, 0, i) - 1) * bound
  }
  return flat
}

export interface BoundAdapter {
  /** By module name, as `weightsOf` wants them. */
  readonly loras: ReadonlyMap<string, Lora>
  /** Every A and B in the vector's order: what autodiff differentiates by. */
  readonly parts: readonly Value[]
}

const bind = (
  { config, modules }: LoraLayout,
  part: (name: string, dims: readonly [number, number], from: number) => Value,
): BoundAdapter => {
  const loras = new Map<string, Lora>()
  const parts: Value[] = []
  for (const m of modules) {
    const a = part(`${m.name}.lora_A`, [config.rank, m.in], m.a)
    const b = part(`${m.name}.lora_B`, [m.out, config.rank], m.b)
    loras.set(m.name, { a, b, scale: config.alpha / config.rank })
    parts.push(a, b)
  }
  return { loras, parts }
}

/** Cuts the graph input `flat` [parameters] into every module's A and B: one input, and one gradient for it. */
export const bindAdapter = (layout: LoraLayout, flat: Value): BoundAdapter =>
  bind(layout, (_, dims, from) => reshape(slice(flat, 0, from, from + dims[0] * dims[1]), dims))

/** Every A and B as an input of its own, `<module>.lora_A` and `.lora_B`: nothing is copied in a run. */
export const adapterInputs = (layout: LoraLayout): BoundAdapter =>
  bind(layout, (name, dims) => input(name, 'float32', dims))

/** The feeds of `adapterInputs`, over the vector's own memory. */
export function adapterFeeds(
  { config, modules }: LoraLayout,
  flat: Float32Array,
): Record<string, HostTensor> {
  const feeds: Record<string, HostTensor> = {}
  for (const m of modules) {
    const b = m.b + m.out * config.rank
    feeds[`${m.name}.lora_A`] = float32([config.rank, m.in], flat.subarray(m.a, m.b))
    feeds[`${m.name}.lora_B`] = float32([m.out, config.rank], flat.subarray(m.b, b))
  }
  return feeds
}

/** The gradients of `parts`, in the same order, as one vector [parameters]. */
export const flatten = (gradients: readonly Value[], { modules, config }: LoraLayout): Value =>
  concat(
    gradients.map((g, i) => {
      const m = modules[i >> 1]!
      return reshape(g, [config.rank * (i % 2 === 0 ? m.in : m.out)])
    }),
    0,
  )

/** The flat vector cut into PEFT's pairs, over the same memory. */
export function adapterFromFlat(
  { config, modules }: LoraLayout,
  flat: Float32Array,
  base: string,
): Adapter {
  const pairs = new Map<string, LoraPair>()
  for (const m of modules)
    pairs.set(m.name, {
      a: flat.subarray(m.a, m.b),
      b: flat.subarray(m.b, m.b + m.out * config.rank),
      in_features: m.in,
      out_features: m.out,
    })
  return {
    config: {
      r: config.rank,
      lora_alpha: config.alpha,
      target_modules: config.target_modules,
      base_model_name_or_path: base,
    },
    pairs,
  }
}

/** The vector of an adapter from disk; throws where it does not fit the model that the layout is for. */
export function flatFromAdapter(layout: LoraLayout, { pairs }: Adapter): Float32Array {
  const flat = new Float32Array(layout.parameters)
  const names = new Set(layout.modules.map((m) => m.name))
  for (const name of pairs.keys())
    if (!names.has(name)) throw new Error(`adapter: the model has no projection ${name}`)
  for (const m of layout.modules) {
    const pair = pairs.get(m.name)
    if (!pair) throw new Error(`adapter: ${m.name} is missing`)
    if (pair.in_features !== m.in || pair.out_features !== m.out)
      throw new Error(
        `adapter: ${m.name} is [${pair.out_features}, ${pair.in_features}], the model's is [${m.out}, ${m.in}]`,
      )
    flat.set(pair.a, m.a)
    flat.set(pair.b, m.b)
  }
  return flat
}
