// What a graph asks of a device, counted node by node: multiplications by kind, bytes that pass, nodes that are started.
// Pure: shapes in, numbers out.

import { type Dim, type Graph, type Node, reach, type Value } from '../graph/graph.ts'
import { HEAD_ROWS } from './step.ts'

/** Of one run. */
export interface Work {
  /** Operations of products of matrices in float32, two a multiplication. */
  readonly fp32: number
  /** Of products with frozen int8 weights. */
  readonly int8: number
  /** Of products of many small matrices: attention. */
  readonly batched: number
  /** Bytes read and written by all other operators. */
  readonly bytes: number
  readonly nodes: number
}

/** Sizes that each run decides: the supervised tokens, `S`, and the pairs of a preference step. */
export interface RunSizes {
  readonly supervised: number
  readonly pairs?: number
}

/** They only say otherwise what lies where. */
const FREE = new Set(['Reshape', 'Unsqueeze', 'Squeeze', 'Shape', 'Size', 'Identity', 'Range'])
/** They read no more of their first input than they write. */
const PICKS = new Set(['Gather', 'Slice', 'GatherElements', 'Expand'])
/** An exponential costs as much as so many bytes more. */
const EXPONENTIAL = new Set(['Softmax', 'LogSoftmax', 'Exp', 'Sigmoid', 'Softplus', 'Gelu'])
const EXPONENTIAL_WEIGHT = 3

/** Sums the work of all nodes that the outputs need. */
export function workOf(graph: Graph, sizes: RunSizes): Work {
  const work = { fp32: 0, int8: 0, batched: 0, bytes: 0, nodes: 0 }
  const size = (dim: Dim) => (typeof dim === 'number' ? dim : sizeOf(dim, sizes))
  const count = (v: Value) => v.dims.reduce<number>((n, dim) => n * size(dim), 1)
  for (const node of reach(Object.values(graph)).nodes) {
    work.nodes++
    if (FREE.has(node.op)) continue
    const made = node.outputs.reduce((n, v) => n + count(v) * bytesOf(v), 0)
    if (node.op === 'Gemm' || node.op === 'MatMul' || node.op === 'MatMulIntegerToFloat') {
      const flops = 2 * count(node.outputs[0]!) * size(innerOf(node))
      if (node.op === 'MatMulIntegerToFloat') work.int8 += flops
      else if (node.inputs[0]!.dims.length > 2) work.batched += flops
      else work.fp32 += flops
      continue
    }
    const read = PICKS.has(node.op)
      ? made
      : node.inputs.reduce((n, v) => n + (v ? count(v) * bytesOf(v) : 0), 0)
    work.bytes += (read + made) * (EXPONENTIAL.has(node.op) ? EXPONENTIAL_WEIGHT : 1)
  }
  return work
}

/** `S.2` is the third chunk of S supervised tokens. */
function sizeOf(name: string, { supervised, pairs = 1 }: RunSizes): number {
  if (name === 'pairs') return pairs
  const chunk = /\.(\d+)$/.exec(name)
  if (!chunk) return supervised
  return Math.min(HEAD_ROWS, Math.max(0, supervised - Number(chunk[1]) * HEAD_ROWS))
}

function innerOf({ op, inputs, attributes }: Node): Dim {
  const { dims } = inputs[0]!
  return op === 'Gemm' && attributes.transA === 1 ? dims[0]! : dims.at(-1)!
}

const BYTES: Readonly<Record<string, number>> = {
  int64: 8,
  float16: 2,
  bfloat16: 2,
  uint8: 1,
  int8: 1,
  bool: 1,
}
const bytesOf = ({ dtype }: Value): number => BYTES[dtype] ?? 4
