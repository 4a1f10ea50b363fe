// Graph → ONNX bytes (onnx.proto3 of ONNX 1.18), keeping only the nodes that the outputs need.

import { parse, relative } from 'node:path'
import type { Dtype, HostTensor } from '../tensor.ts'
import type { Attribute, Dims, Graph, Node, Value } from './graph.ts'
import { type Lowered, lower } from './lower.ts'
import { Message } from './protobuf.ts'

const IR_VERSION = 10
const OPSET = 21
const PRODUCER = 'luthier'

/** What the locations of external weights are relative to. */
export const EXTERNAL_ROOT = parse(process.cwd()).root

/** TensorProto.DataType */
const DATA_TYPE: Record<Dtype, number> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
}

/**
 * Encodes the graph that computes `outputs`, each under its given name. Inputs keep their own names; weights
 * become external data, by their file's path below `EXTERNAL_ROOT`. Throws where two inputs share a name. Operators of
 * `without` are written in others; `rewrite` may put fewer nodes in the place of some that compute the same.
 */
export function encodeOnnx(
  outputs: Graph,
  without: readonly Lowered[] = [],
  rewrite: (nodes: readonly Node[]) => readonly Node[] = (nodes) => nodes,
): Uint8Array {
  const { nodes: plain, leaves, instead } = lower(Object.values(outputs), without)
  const nodes = rewrite(plain)
  const names = new Map<Value, string>()
  const graph = new Message()

  const taken = new Set<string>(Object.keys(outputs))
  for (const leaf of leaves) {
    const { source } = leaf
    if (source.type === 'input' || source.type === 'external') {
      if (taken.has(source.name)) throw new Error(`ONNX: the name ${source.name} is used twice`)
      taken.add(source.name)
      names.set(leaf, source.name)
    }
  }
  // What a node makes bears its output's name; a leaf, or a value of two names, gets an Identity for it.
  const copies: [string, Value][] = []
  for (const [name, v] of Object.entries(outputs)) {
    const made = instead.get(v) ?? v
    if (made.source.type === 'node' && !names.has(made)) names.set(made, name)
    else copies.push([name, made])
  }
  const nameOf = (v: Value | undefined): string => {
    if (!v) return ''
    const other = instead.get(v)
    if (other) return nameOf(other)
    const known = names.get(v)
    if (known !== undefined) return known
    const name = `v${v.id}`
    names.set(v, name)
    return name
  }

  const used = new Set(nodes.flatMap(({ inputs }) => inputs))
  for (const v of Object.values(outputs)) used.add(v)
  for (const node of nodes) graph.message(1, encodeNode(node, nameOf, used))
  for (const [name, v] of copies)
    graph.message(1, new Message().string(1, nameOf(v)).string(2, name).string(4, 'Identity'))
  graph.string(2, PRODUCER)
  for (const leaf of leaves) {
    if (leaf.source.type === 'constant')
      graph.message(5, encodeTensor(nameOf(leaf), leaf.source.tensor))
    if (leaf.source.type === 'external') graph.message(5, encodeExternal(leaf, leaf.source))
    if (leaf.source.type === 'input') graph.message(11, valueInfo(nameOf(leaf), leaf))
  }
  for (const [name, v] of Object.entries(outputs)) graph.message(12, valueInfo(name, v))

  const model = new Message()
    .int(1, IR_VERSION)
    .string(2, PRODUCER)
    .message(7, graph)
    .message(8, new Message().string(1, '').int(2, OPSET))
  // Other runtimes refuse a domain that they do not know, used or not.
  if (nodes.some(({ domain }) => domain === 'com.microsoft'))
    model.message(8, new Message().string(1, 'com.microsoft').int(2, 1))
  return model.bytes()
}

/** Outputs after the first that nothing uses are left out, the last of them altogether: they are optional. */
function encodeNode(
  node: Node,
  nameOf: (v: Value | undefined) => string,
  used: ReadonlySet<Value | undefined>,
): Message {
  const message = new Message()
  for (const i of node.inputs) message.string(1, nameOf(i))
  const wanted = node.outputs.map((o, i) => i === 0 || (o !== undefined && used.has(o)))
  for (const [i, o] of node.outputs.slice(0, wanted.lastIndexOf(true) + 1).entries())
    message.string(2, wanted[i] ? nameOf(o) : '')
  message.string(3, `${node.op}_${node.outputs[0]!.id}`).string(4, node.op)
  for (const [name, a] of Object.entries(node.attributes)) message.message(5, attribute(name, a))
  return message.string(7, node.domain)
}

/** AttributeProto: the type is 1 for a float, 2 for an int, 3 for a string, 7 for ints. */
function attribute(name: string, a: Attribute): Message {
  const message = new Message().string(1, name)
  if (typeof a === 'number') return message.int(3, a).int(20, 2)
  if (typeof a === 'string') return message.string(4, a).int(20, 3)
  if ('float' in a) return message.float(2, a.float).int(20, 1)
  for (const i of a) message.int(8, i)
  return message.int(20, 7)
}

function encodeTensor(name: string, { dtype, dims, data }: HostTensor): Message {
  const message = new Message()
  for (const d of dims) message.int(1, d)
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return message.int(2, DATA_TYPE[dtype]).string(8, name).raw(9, raw)
}

function encodeExternal(
  leaf: Value,
  place: { name: string; file: string; offset: number; bytes: number },
): Message {
  const message = new Message()
  for (const d of leaf.dims) message.int(1, d as number)
  message.int(2, DATA_TYPE[leaf.dtype]).string(8, place.name)
  const entry = (key: string, text: string) => new Message().string(1, key).string(2, text)
  return message
    .message(13, entry('location', relative(EXTERNAL_ROOT, place.file)))
    .message(13, entry('offset', String(place.offset)))
    .message(13, entry('length', String(place.bytes)))
    .int(14, 1)
}

function valueInfo(name: string, { dtype, dims }: { dtype: Dtype; dims: Dims }): Message {
  const shape = new Message()
  for (const d of dims)
    shape.message(1, typeof d === 'number' ? new Message().int(1, d) : new Message().string(2, d))
  const tensor = new Message().int(1, DATA_TYPE[dtype]).message(2, shape)
  return new Message().string(1, name).message(2, new Message().message(1, tensor))
}
