// A checkpoint's tensors as graph values, under scoped names, with the adapter that may sit on a projection.

import { external, type Value } from '../graph/graph.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { type Kept, keepEverything } from './keep.ts'
import { type Block, type Products, plainProducts, productsOf } from './products.ts'

/**
 * A low-rank update of one projection, a [r, in], b [out, r] (arXiv 2106.09685): y = gain · (x·wᵀ + scale · (x·aᵀ)·bᵀ).
 * Every projection of a group has the same `drop`, and all have a gain or none.
 */
export interface Lora {
  readonly a: Value
  readonly b: Value
  readonly scale: number
  /** DoRA's factor of each output, [1, out], from the frozen weight; absent: 1. */
  readonly gain?: ((weight: Value) => Value) | undefined
  /** Dropout of what the update reads; the site's name is that of its first projection. */
  readonly drop?: ((x: Value, site: string) => Value) | undefined
}

/** From what a block of projections reads, x [N, in], and gives, to what it gives with adapters on it. */
export type Adapt = (x: Value, block: Block) => Value

/** Where a part of the model finds its tensors; `at` steps into a part of it. */
export interface Weights {
  /** `model.layers.0.self_attn.q_proj` */
  readonly path: string
  at(part: string): Weights
  /** The tensor of this name in this scope; throws where the checkpoint has none. */
  get(name: string): Value
  has(name: string): boolean
  /** The adapter on this scope's own `weight`. */
  readonly lora: Lora | undefined
  /** The same tensors under another adapter, by the modules it adapts; for a second pass in one graph. */
  adapted(loras: ReadonlyMap<string, Lora>, kept?: Kept): Weights
  /** Adapters of many kinds at once, instead of `lora`: for serving. */
  readonly adapt: Adapt | undefined
  /** How products with frozen weights are computed. */
  readonly products: Products
  /** How parts of the model are computed, so that no more than wanted is kept of them. */
  readonly kept: Kept
}

export interface WeightsOptions {
  /** By the module they adapt, `model.layers.0.self_attn.q_proj`. */
  readonly loras?: ReadonlyMap<string, Lora>
  readonly products?: Products
  readonly adapt?: Adapt
  readonly kept?: Kept
  /** Tensors that are trained, by their full names: instead of the checkpoint's, or besides them. */
  readonly trained?: ReadonlyMap<string, Value>
}

/** All tensors of a checkpoint. */
export function weightsOf(
  mapped: MappedWeights,
  {
    loras = new Map(),
    products = productsOf(mapped),
    adapt,
    kept = keepEverything,
    trained = new Map(),
  }: WeightsOptions = {},
): Weights {
  const values = new Map<string, Value>(trained)
  const get = (name: string): Value => {
    const known = values.get(name)
    if (known) return known
    const tensor = mapped.tensors.get(name)
    if (!tensor) throw new Error(`The checkpoint has no tensor ${name}.`)
    const value = external(name, { dtype: 'float32', dims: tensor.dims }, tensor)
    values.set(name, value)
    return value
  }
  const scope = (path: string, loras: ReadonlyMap<string, Lora>, kept: Kept): Weights => ({
    path,
    kept,
    adapt,
    products: trained.has(`${path}.weight`) ? plainProducts : products,
    at: (part) => scope(path === '' ? part : `${path}.${part}`, loras, kept),
    get: (name) => get(`${path}.${name}`),
    has: (name) => [trained, mapped.tensors].some((all) => all.has(`${path}.${name}`)),
    lora: loras.get(path),
    adapted: (others, otherwise = kept) => scope(path, others, otherwise),
  })
  return scope('', loras, kept)
}
