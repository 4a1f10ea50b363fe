// Operators that a device has no kernel for, written in others that it has.

import { emitOne, ints, type Node, reach, scalar, type Value } from './graph.ts'
import { transposeLast } from './ops/products.ts'

/** From a node to the values of its outputs. */
type Rewrite = (node: Node) => readonly Value[]

const lastAxis = (x: Value, op: string): Value =>
  emitOne(
    op,
    [x, ints(-1)],
    { dtype: x.dtype, dims: x.dims.map((d, i) => (i === x.dims.length - 1 ? 1 : d)) },
    { attributes: { keepdims: 1 } },
  )

/** By the operator; each is the same mathematics, and rounds a little otherwise. */
const REWRITES = {
  /** ln softmax(x) = x − m − ln Σ e^(x − m) along the last axis, m being the largest */
  LogSoftmax: ({ inputs: [x] }) => {
    const below = emitOne('Sub', [x, lastAxis(x!, 'ReduceMax')], x!)
    const sum = lastAxis(emitOne('Exp', [below], x!), 'ReduceSum')
    return [emitOne('Sub', [below, emitOne('Log', [sum], sum)], x!)]
  },

  /** alpha · op(a)·op(b) */
  FusedMatMul: ({ inputs, attributes, outputs: [y] }) => {
    const [a, b] = inputs.map((x, i) =>
      attributes[i === 0 ? 'transA' : 'transB'] ? transposeLast(x!) : x!,
    )
    const product = emitOne('MatMul', [a, b], y!)
    const { float } = attributes.alpha as { float: number }
    return [float === 1 ? product : emitOne('Mul', [product, scalar(float)], y!)]
  },

  /** x·s·w and s = 1/√(mean(x²) + ε) */
  SimplifiedLayerNormalization: ({ inputs: [x, w], attributes: { epsilon } }) => {
    const eps = (epsilon as { float: number }).float
    const mean = lastAxis(emitOne('Mul', [x, x], x!), 'ReduceMean')
    const root = emitOne('Sqrt', [emitOne('Add', [mean, scalar(eps)], mean)], mean)
    const s = emitOne('Reciprocal', [root], mean)
    return [emitOne('Mul', [emitOne('Mul', [x, s], x!), w], x!), s]
  },

  /** x·σ(α·x) for the α that we use, 1 */
  QuickGelu: ({ inputs: [x] }) => [emitOne('Mul', [x, emitOne('Sigmoid', [x], x!)], x!)],

  /** x·Φ(x), as ONNX has had it since its version 20, of the same name. */
  Gelu: ({ inputs: [x] }) => [emitOne('Gelu', [x], x!)],
  FastGelu: ({ inputs: [x] }) => [
    emitOne('Gelu', [x], x!, { attributes: { approximate: 'tanh' } }),
  ],
} satisfies Record<string, Rewrite>

/** What can be written in other operators. */
export type Lowered = keyof typeof REWRITES

export interface LoweredGraph {
  readonly nodes: readonly Node[]
  readonly leaves: readonly Value[]
  /** What computes a value now, where that is not what computed it before. */
  readonly instead: ReadonlyMap<Value, Value>
}

/** The nodes and leaves that the outputs need, without these operators. */
export function lower(outputs: readonly Value[], operators: readonly Lowered[]): LoweredGraph {
  const { nodes, leaves } = reach(outputs)
  const instead = new Map<Value, Value>()
  const known = new Set<unknown>([...nodes, ...leaves])
  const lowered: Node[] = []
  for (const node of nodes) {
    const operator = operators.find((name) => name === node.op)
    if (!operator) {
      lowered.push(node)
      continue
    }
    const values = REWRITES[operator](node)
    for (const [i, output] of node.outputs.entries()) if (output) instead.set(output, values[i]!)
    const made = reach(values)
    lowered.push(...made.nodes.filter((inner) => !known.has(inner)))
    for (const leaf of made.leaves)
      if (!known.has(leaf)) {
        known.add(leaf)
        leaves.push(leaf)
      }
  }
  return { nodes: lowered, leaves, instead }
}
