// What a merge method is: which inputs and parameters it takes, and how it merges tensors that come in pieces.

import type { ParameterSpec, ParameterValue } from './settings.ts'

type Parameters = Readonly<Record<string, ParameterValue | null>>

/** What is said of one model's tensor. */
export interface MergeInput {
  readonly isBase: boolean
  readonly parameters: Parameters
}

/** Whole rows of the tensors (a vector is one row), as float32. A method may write into them. */
export interface Piece {
  /** The place of the first element in the tensor. */
  readonly at: number
  /** One of each input, in the inputs' order. */
  readonly data: readonly Float32Array[]
}

/** The tensors of one name, and what is said of them. */
export interface MergeGroup {
  readonly name: string
  readonly dims: readonly number[]
  /** In the order of the merge's text. */
  readonly inputs: readonly MergeInput[]
  readonly parameters: Parameters
  /**
   * Fills `out` with numbers in [0, 1), the same for the same (seed, tensor, input, position) whatever the order of
   * work; `at` is the first one's position.
   */
  random(input: number, at: number, out: Float64Array): void
  /** Goes through the tensors from their start to their end. A piece is only valid until the next. */
  scan(visit: (piece: Piece) => void): void
}

/** Merges one piece; asked for each of them once, in order. The result may be one of the piece's arrays. */
export type MergePiece = (piece: Piece) => Float32Array

export interface MergeMethod {
  readonly name: string
  /** Paper or description. */
  readonly reference: string
  /** Whether `base_model` is asked for, may be there, or is an input as any other. */
  readonly base: 'required' | 'optional' | 'ignored'
  /** How many models, the base counted only where it is an input as any other. */
  readonly others: { readonly min: number; readonly max?: number }
  readonly parameters: Readonly<Record<string, ParameterSpec>>
  /** What is NaN or infinite in an input is so in the result, whatever the parameters: the inputs need no look. */
  readonly carriesNoNumbers?: true
  /** Looks through the tensors as often as it must before their pieces can be merged. */
  begin(group: MergeGroup): MergePiece
}

/** Places among the inputs: of the base, and of the others in their order. */
export interface Places {
  readonly base: number | undefined
  readonly others: readonly number[]
}

export function placesOf({ inputs }: Pick<MergeGroup, 'inputs'>): Places {
  const base = inputs.findIndex(({ isBase }) => isBase)
  return {
    base: base < 0 ? undefined : base,
    others: inputs.flatMap(({ isBase }, i) => (isBase ? [] : [i])),
  }
}

/** The same; throws where a method without its base slipped through the checks. */
export function placesBesideBase(group: Pick<MergeGroup, 'inputs' | 'name'>) {
  const { base, others } = placesOf(group)
  if (base === undefined) throw new Error(`tensor ${group.name}: the base model is missing`)
  return { base, others }
}

/** A number that was resolved before, for its default is one. */
export const numberOf = (parameters: Parameters, name: string): number => Number(parameters[name])

/** Tensors that lie in memory, merged at once. */
export function mergeWhole(
  method: MergeMethod,
  group: Omit<MergeGroup, 'scan'>,
  tensors: readonly Float32Array[],
): Float32Array {
  const piece = () => ({ at: 0, data: tensors.map((tensor) => tensor.slice()) })
  return method.begin({ ...group, scan: (visit) => visit(piece()) })(piece())
}

/** a ← a − b */
export function subtract(a: Float32Array, b: Float32Array): Float32Array {
  for (let k = 0; k < a.length; k++) a[k] = a[k]! - b[k]!
  return a
}

/** a ← a + b */
export function add(a: Float32Array, b: Float32Array): Float32Array {
  for (let k = 0; k < a.length; k++) a[k] = a[k]! + b[k]!
  return a
}

/** An array that is kept between pieces, of this piece's length. */
export function scratch(): (length: number) => Float32Array {
  let kept = new Float32Array(0)
  return (length) => {
    if (kept.length < length) kept = new Float32Array(length)
    return kept.length === length ? kept : kept.subarray(0, length)
  }
}
