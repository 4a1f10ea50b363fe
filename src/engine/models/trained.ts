// What a job trains, as one flat vector: an adapter's parts, then whole tensors: a head, or every weight.

import { gradients } from '../graph/autodiff.ts'
import { input, type Value } from '../graph/graph.ts'
import { elements, float32, type HostTensor } from '../tensor.ts'
import { bindAdapter, flatten, type LoraLayout } from './adapters.ts'
import type { Lora } from './weights.ts'

/** A whole tensor in the flat vector. */
export interface TensorPlace {
  readonly name: string
  /** Of what is trained: of an embedding table the rows that occur. */
  readonly dims: readonly number[]
  readonly from: number
  /** Which rows of the checkpoint's table these are; absent: all of the tensor. */
  readonly rows?: Int32Array
}

export interface TrainedLayout {
  /** Its parts come first; absent: no adapter. */
  readonly lora: LoraLayout | undefined
  readonly tensors: readonly TensorPlace[]
  /** Elements of the flat vector. */
  readonly parameters: number
}

/** Puts whole tensors after an adapter, or alone. */
export function trainedLayout(
  lora: LoraLayout | undefined,
  tensors: readonly Omit<TensorPlace, 'from'>[],
): TrainedLayout {
  let parameters = lora?.parameters ?? 0
  const places = tensors.map((tensor) => {
    const from = parameters
    parameters += elements(tensor.dims)
    return { ...tensor, from }
  })
  return { lora, tensors: places, parameters }
}

/** A place's part of the vector, over its memory. */
export const cutTensor = ({ dims, from }: TensorPlace, flat: Float32Array): Float32Array =>
  flat.subarray(from, from + elements(dims))

/** How whole tensors learn: as Hugging Face's trainer has it, neither norms nor biases decay. */
export const tensorRates = ({ tensors }: TrainedLayout) =>
  tensors.map(({ dims, from }) => ({
    from,
    to: from + elements(dims),
    ratio: 1,
    decays: dims.length > 1,
  }))

export interface BoundTrained {
  readonly loras: ReadonlyMap<string, Lora>
  /** By name, as `weightsOf` wants them. */
  readonly tensors: ReadonlyMap<string, Value>
  /** Outputs of a graph that hold the gradient of `y`; `dy` defaults to ones. */
  gradients(y: Value, dy?: Value): Record<string, Value>
}

const tensorInput = (name: string): string => `trained.${name}`
const tensorGradient = (name: string): string => `gradient.${name}`

/** The vector as graph inputs: the adapter's part as one, each whole tensor for itself, so that nothing is copied. */
export function bindTrained(layout: TrainedLayout, drop?: Lora['drop']): BoundTrained {
  const { lora } = layout
  const bound = lora && bindAdapter(lora, input('adapter', 'float32', [lora.parameters]), drop)
  const tensors = new Map(
    layout.tensors.map(({ name, dims }) => [name, input(tensorInput(name), 'float32', dims)]),
  )
  return {
    loras: bound?.loras ?? new Map(),
    tensors,
    gradients(y, dy) {
      const parts = bound?.parts ?? []
      const all = gradients(y, [...parts, ...tensors.values()], dy)
      const whole = layout.tensors.map(({ name }, i) => [
        tensorGradient(name),
        all[parts.length + i]!,
      ])
      return {
        ...(lora && { gradient: flatten(all.slice(0, parts.length), lora) }),
        ...Object.fromEntries(whole),
      }
    },
  }
}

/** The feeds of `bindTrained`, over the vector's own memory. */
export const trainedFeeds = (layout: TrainedLayout, flat: Float32Array) =>
  views(layout, flat, 'adapter', tensorInput)

/** Where a run writes the gradients to, over the memory of a vector like the trained one. */
export const gradientPlaces = (layout: TrainedLayout, flat: Float32Array) =>
  views(layout, flat, 'gradient', tensorGradient)

function views(
  { lora, tensors }: TrainedLayout,
  flat: Float32Array,
  adapter: string,
  nameOf: (name: string) => string,
): Record<string, HostTensor> {
  const found: Record<string, HostTensor> = {}
  if (lora) found[adapter] = float32([lora.parameters], flat.subarray(0, lora.parameters))
  for (const place of tensors)
    found[nameOf(place.name)] = float32(place.dims, cutTensor(place, flat))
  return found
}
