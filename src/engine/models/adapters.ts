// LoRA and its kin as one flat vector: what trains is a single input of the graph, and so is its gradient.

import { input, type Value } from '../graph/graph.ts'
import { gainOf, rowLengths } from '../graph/ops/dora.ts'
import { concat, reshape, slice } from '../graph/ops/shape.ts'
import { uniform } from '../random.ts'
import { elements, float32, type HostTensor } from '../tensor.ts'
import type { Adapter, LoraPair } from '../weights/adapter.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { familyOf } from '../weights/model-config.ts'
import type { Lora } from './weights.ts'

export interface LoraConfig {
  readonly rank: number
  readonly alpha: number
  /** Projections by their last name: `q_proj`. */
  readonly target_modules: readonly string[]
  /** Share of the update's input that is dropped in training. */
  readonly dropout?: number
  /** Scale by alpha / √rank (arXiv 2312.03732) instead of alpha / rank. */
  readonly use_rslora?: boolean
  /** The length of each output's weights is trained by itself (arXiv 2402.09353). */
  readonly use_dora?: boolean
}

/** Where one projection's A [rank, in], B [out, rank] and DoRA's magnitude [out] lie in the flat vector. */
export interface LoraModule {
  /** `model.layers.0.self_attn.q_proj` */
  readonly name: string
  readonly in: number
  readonly out: number
  readonly a: number
  readonly b: number
  readonly magnitude: number | undefined
}

export interface LoraLayout {
  readonly config: LoraConfig
  readonly modules: readonly LoraModule[]
  /** Elements of the flat vector. */
  readonly parameters: number
  /** What PEFT must be told of the base's files; nothing here depends on it. */
  readonly fan_in_fan_out: boolean
}

/**
 * The layout of an adapter over a checkpoint: every 2-D `….<target>.weight` in the order of layers and targets.
 * Throws where a target names no projection.
 */
export function loraLayout(weights: MappedWeights, config: LoraConfig): LoraLayout {
  const modules: LoraModule[] = []
  let parameters = 0
  const take = (count: number): number => {
    parameters += count
    return parameters - count
  }
  for (const target of config.target_modules) {
    const suffix = `.${target}.weight`
    const found = [...weights.tensors.values()]
      .filter((t) => t.name.endsWith(suffix) && t.dims.length === 2)
      .map((t) => ({ name: t.name.slice(0, -'.weight'.length), dims: t.dims }))
      .sort((x, y) => layerOf(x.name) - layerOf(y.name))
    if (found.length === 0) throw new Error(`target_modules: the model has no ${target}`)
    for (const { name, dims } of found) {
      const [out, inner] = [dims[0]!, dims[1]!]
      const a = take(config.rank * inner)
      const b = take(out * config.rank)
      const magnitude = config.use_dora ? take(out) : undefined
      modules.push({ name, in: inner, out, a, b, magnitude })
    }
  }
  const fan_in_fan_out = familyOf(weights.config).fan_in_fan_out === true
  return { config, modules, parameters, fan_in_fan_out }
}

const layerOf = (name: string): number => Number(/\.(\d+)\./.exec(name)?.[1] ?? 0)

/** What the low-rank product is multiplied by. */
export const scaleOf = ({ alpha, rank, use_rslora }: LoraConfig): number =>
  alpha / (use_rslora ? Math.sqrt(rank) : rank)

type Kind = 'lora_A' | 'lora_B' | 'lora_magnitude_vector'

/** One matrix or vector of one module: its place in the flat vector, and its shape in the graph. */
export interface LoraPart {
  readonly module: LoraModule
  readonly kind: Kind
  readonly dims: readonly [number, number]
  readonly from: number
}

/** All parts in the vector's order, end to end. */
export const partsOf = ({ config, modules }: LoraLayout): LoraPart[] =>
  modules.flatMap((module) => {
    const { in: inner, out, a, b, magnitude } = module
    const part = (kind: Kind, dims: readonly [number, number], from: number): LoraPart => ({
      module,
      kind,
      dims,
      from,
    })
    return [
      part('lora_A', [config.rank, inner], a),
      part('lora_B', [out, config.rank], b),
      ...(magnitude === undefined
        ? []
        : [part('lora_magnitude_vector', [1, out] as const, magnitude)]),
    ]
  })

/** A part of the vector, over its memory. */
export const cutPart = ({ dims, from }: LoraPart, flat: Float32Array): Float32Array =>
  flat.subarray(from, from + elements(dims))

/**
 * A fresh adapter as PEFT makes it: A uniform in ±1/√in (Kaiming with a = √5), B zero. Magnitudes stay 0: they are
 * the lengths of the model's own weights, which `setMagnitudes` knows.
 */
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
  /** Every part in the vector's order: what autodiff differentiates by. */
  readonly parts: readonly Value[]
}

/**
 * Cuts the graph input `flat` [parameters] into every module's parts: one input, and one gradient for it. `drop` is
 * training's dropout.
 */
export function bindAdapter(layout: LoraLayout, flat: Value, drop?: Lora['drop']): BoundAdapter {
  const scale = scaleOf(layout.config)
  const loras = new Map<string, Lora>()
  const parts: Value[] = []
  const value = ({ dims, from }: LoraPart): Value =>
    reshape(slice(flat, 0, from, from + elements(dims)), dims)
  for (const [name, [a, b, magnitude]] of byModule(layout, value)) {
    let made: Value | undefined
    const gain =
      magnitude &&
      ((w: Value) => {
        made ??= gainOf(magnitude, rowLengths(w, a!, b!, scale))
        return made
      })
    loras.set(name, { a: a!, b: b!, scale, gain, drop })
    parts.push(a!, b!, ...(magnitude ? [magnitude] : []))
  }
  return { loras, parts }
}

const partName = ({ module, kind }: LoraPart): string => `${module.name}.${kind}`

/**
 * Every A and B as an input of its own, `<module>.lora_A` and `.lora_B`: nothing is copied in a run. With DoRA the gain
 * is fed under the magnitude's name: what does not change with the tokens is not computed with them.
 */
export function adapterInputs(layout: LoraLayout): ReadonlyMap<string, Lora> {
  const scale = scaleOf(layout.config)
  const loras = new Map<string, Lora>()
  const value = (part: LoraPart): Value => input(partName(part), 'float32', part.dims)
  for (const [name, [a, b, gain]] of byModule(layout, value))
    loras.set(name, { a: a!, b: b!, scale, gain: gain && (() => gain) })
  return loras
}

/** The feeds of `adapterInputs`, over the vector's own memory; its magnitudes are gains by now (`gainsOf`). */
export const adapterFeeds = (layout: LoraLayout, flat: Float32Array): Record<string, HostTensor> =>
  Object.fromEntries(
    partsOf(layout).map((part) => [partName(part), float32(part.dims, cutPart(part, flat))]),
  )

/** Every module's parts: A, B and, with DoRA, the magnitude. */
function byModule<T>(layout: LoraLayout, make: (part: LoraPart) => T): Map<string, T[]> {
  const found = new Map<string, T[]>()
  for (const part of partsOf(layout))
    found.set(part.module.name, [...(found.get(part.module.name) ?? []), make(part)])
  return found
}

/**
 * The gradients of `parts`, in the same order, as one vector [parameters]. What is made last the runtime computes first
 * (it goes back from the outputs, later nodes before earlier ones): so each gradient is computed when all that
 * it needs is there, and frees it.
 */
export function flatten(gradients: readonly Value[], layout: LoraLayout): Value {
  const parts = partsOf(layout)
  const flat: Value[] = []
  const fromBelow = gradients.map((g, i) => ({ g, i })).sort((a, b) => b.g.id - a.g.id)
  for (const { g, i } of fromBelow) flat[i] = reshape(g, [elements(parts[i]!.dims)])
  return concat(flat, 0)
}

/** The flat vector cut into PEFT's tensors, over the same memory. */
export function adapterFromFlat(layout: LoraLayout, flat: Float32Array, base: string): Adapter {
  const { config, modules } = layout
  const pairs = new Map<string, LoraPair>()
  for (const m of modules)
    pairs.set(m.name, {
      a: flat.subarray(m.a, m.b),
      b: flat.subarray(m.b, m.b + m.out * config.rank),
      ...(m.magnitude !== undefined && {
        magnitude: flat.subarray(m.magnitude, m.magnitude + m.out),
      }),
      in_features: m.in,
      out_features: m.out,
    })
  return {
    config: {
      r: config.rank,
      lora_alpha: config.alpha,
      target_modules: config.target_modules,
      lora_dropout: config.dropout ?? 0,
      use_rslora: config.use_rslora ?? false,
      use_dora: config.use_dora ?? false,
      base_model_name_or_path: base,
      ...(layout.fan_in_fan_out && { fan_in_fan_out: true }),
    },
    pairs,
  }
}

/** What an adapter on disk computes. */
export const loraConfigOf = ({ config }: Adapter): LoraConfig => ({
  rank: config.r,
  alpha: config.lora_alpha,
  target_modules: config.target_modules,
  use_rslora: config.use_rslora,
  use_dora: config.use_dora,
})

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
    if ((m.magnitude === undefined) !== (pair.magnitude === undefined))
      throw new Error(`adapter: ${m.name} is of another kind, one of them DoRA`)
    if (m.magnitude !== undefined) flat.set(pair.magnitude!, m.magnitude)
  }
  return flat
}
