// What a merge method is: which inputs and parameters it takes, and what it makes of one tensor of each.

import type { ParameterSpec, ParameterValue } from './settings.ts'

/** One model's tensor, as float32. The method may write into it. */
export interface MergeInput {
  readonly data: Float32Array
  readonly isBase: boolean
  readonly parameters: Readonly<Record<string, ParameterValue | null>>
}

/** The tensors of one name, and what is said of them. */
export interface MergeGroup {
  readonly name: string
  readonly dims: readonly number[]
  /** In the order of the merge's text. */
  readonly inputs: readonly MergeInput[]
  readonly parameters: Readonly<Record<string, ParameterValue | null>>
  /**
   * Fills `out` with numbers in [0, 1), the same for the same (seed, tensor, input, position) whatever the order of
   * work; `at` is the first one's position.
   */
  random(input: number, at: number, out: Float64Array): void
}

export interface MergeMethod {
  readonly name: string
  /** Paper or description. */
  readonly reference: string
  /** Whether `base_model` is asked for, may be there, or is an input as any other. */
  readonly base: 'required' | 'optional' | 'ignored'
  /** How many models, the base counted only where it is an input as any other. */
  readonly others: { readonly min: number; readonly max?: number }
  readonly parameters: Readonly<Record<string, ParameterSpec>>
  /** Each element depends on the elements at its place alone: large tensors may be merged in pieces. */
  readonly elementwise?: true
  merge(group: MergeGroup): Float32Array
}

/** The base and the others; throws where a method without its base slipped through the checks. */
export function baseAndOthers({ name, inputs }: MergeGroup): {
  base: Float32Array
  others: readonly MergeInput[]
} {
  const base = inputs.find(({ isBase }) => isBase)
  if (!base) throw new Error(`tensor ${name}: the base model is missing`)
  return { base: base.data, others: inputs.filter(({ isBase }) => !isBase) }
}

/** A number that was resolved before, for its default is one. */
export const numberOf = (
  parameters: Readonly<Record<string, ParameterValue | null>>,
  name: string,
): number => Number(parameters[name])
