// Values and the nodes that make them. A graph is whatever its outputs reach: there is nothing to register.

import { type Dtype, elements, float32, type HostTensor, int64 } from '../tensor.ts'

/** A size known when the graph is built, or the name of one that each run decides. */
export type Dim = number | string
export type Dims = readonly Dim[]

export interface ValueType {
  readonly dtype: Dtype
  readonly dims: Dims
}

/** Where a value's content comes from. */
export type Source =
  | { readonly type: 'input'; readonly name: string }
  | { readonly type: 'constant'; readonly tensor: HostTensor }
  /** Bytes in a file that the runtime maps; never read by us. */
  | {
      readonly type: 'external'
      readonly name: string
      /** Absolute path. */
      readonly file: string
      readonly offset: number
      readonly bytes: number
    }
  | { readonly type: 'node'; readonly node: Node }

/** Integers and strings as they are; a float says so, for ONNX tells 1 from 1.0. */
export type Attribute = number | string | readonly number[] | { readonly float: number }

/** One ONNX operator. `inputs` and `outputs` may have holes: optional ones left out. */
export interface Node {
  readonly op: string
  readonly domain: '' | 'com.microsoft'
  readonly inputs: readonly (Value | undefined)[]
  readonly outputs: readonly (Value | undefined)[]
  readonly attributes: Readonly<Record<string, Attribute>>
}

/**
 * From dy to the gradient of each input, `undefined` where none flows. `settled` gives the gradients asked for that
 * have come in since it was last called: for the few rules that care what is computed before they go on.
 */
export type GradientRule = (
  dy: Value,
  settled: () => readonly Value[],
) => readonly (Value | undefined)[]

/** How autodiff goes back through a value; set by the operator that made it. */
export interface Origin {
  readonly name: string
  readonly inputs: readonly Value[]
  readonly gradient: GradientRule | undefined
}

export interface Value extends ValueType {
  /** Grows with creation, so that sorting by it is a topological order. */
  readonly id: number
  readonly source: Source
  origin?: Origin
  /** Set where this value is another one with zeros around it: autodiff joins such pieces without adding zeros. */
  piece?: Piece
  /** Set where this value is cheap to make anew: a gradient that needs it does so, and it is not kept until then. */
  anew?: () => Value
}

/** `inner` between `before` and `after` zeros along one axis. */
export interface Piece {
  readonly inner: Value
  readonly axis: number
  readonly before: number
  readonly after: number
}

/** A graph is whatever its outputs reach; these are they, under their names. */
export type Graph = Readonly<Record<string, Value>>

let lastId = 0

const value = (type: ValueType, source: Source): Value => ({
  id: ++lastId,
  dtype: type.dtype,
  dims: type.dims,
  source,
})

/** A graph input, fed at each run. */
export const input = (name: string, dtype: Dtype, dims: Dims): Value =>
  value({ dtype, dims }, { type: 'input', name })

/** A small tensor inside the graph's own bytes. */
export const constant = (tensor: HostTensor): Value => value(tensor, { type: 'constant', tensor })

/** A float32 scalar. */
export const scalar = (x: number): Value => constant(float32([], Float32Array.of(x)))

/** A vector of int64, as shapes and axes want it. */
export const ints = (...values: number[]): Value => constant(int64([values.length], values))

/** A weight in a mapped file. */
export const external = (
  name: string,
  type: ValueType,
  place: { file: string; offset: number; bytes: number },
): Value =>
  value(type, {
    type: 'external',
    name,
    file: place.file,
    offset: place.offset,
    bytes: place.bytes,
  })

export interface NodeOptions {
  domain?: '' | 'com.microsoft'
  attributes?: Record<string, Attribute>
}

/** Adds a node and returns its outputs, one for each given type. */
export function emit(
  op: string,
  inputs: readonly (Value | undefined)[],
  types: readonly ValueType[],
  { domain = '', attributes = {} }: NodeOptions = {},
): Value[] {
  const outputs: Value[] = []
  const node: Node = { op, domain, inputs, outputs, attributes }
  for (const type of types) outputs.push(value(type, { type: 'node', node }))
  return outputs
}

/** Adds a node with one output. */
export function emitOne(
  op: string,
  inputs: readonly (Value | undefined)[],
  type: ValueType,
  options: NodeOptions = {},
): Value {
  return emit(op, inputs, [type], options)[0]!
}

/** Tells autodiff how `y` came from `inputs`; whatever nodes lie between, this rule stands for them. */
export function withGradient(
  name: string,
  y: Value,
  inputs: readonly Value[],
  gradient: GradientRule | undefined,
): Value {
  y.origin = { name, inputs, gradient }
  return y
}

/** The value for the use of a gradient: made anew, where that is cheap. */
export const anew = (x: Value): Value => x.anew?.() ?? x

/** Every node that the outputs need, inputs before users; and every leaf they stand on. */
export function reach(outputs: readonly Value[]): { nodes: Node[]; leaves: Value[] } {
  const seen = new Set<Value>()
  const stack = [...outputs]
  while (stack.length > 0) {
    const next = stack.pop()!
    if (seen.has(next)) continue
    seen.add(next)
    if (next.source.type === 'node') for (const i of next.source.node.inputs) if (i) stack.push(i)
  }
  const nodes = new Set<Node>()
  const leaves: Value[] = []
  for (const v of [...seen].sort((a, b) => a.id - b.id))
    if (v.source.type === 'node') nodes.add(v.source.node)
    else leaves.push(v)
  return { nodes: [...nodes], leaves }
}

/** The dims as numbers; throws where one is only known at run time. */
export function staticDims(dims: Dims): number[] {
  return dims.map((d) => {
    if (typeof d === 'string') throw new Error(`a static shape is needed here, got [${dims}]`)
    return d
  })
}

/** Number of elements of a static shape. */
export const size = (dims: Dims): number => elements(staticDims(dims))
