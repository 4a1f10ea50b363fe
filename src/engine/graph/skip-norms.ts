// A sum and the norm of it as one operator.

import type { Node, Value } from './graph.ts'

/** The nodes, with com.microsoft's SkipSimplifiedLayerNormalization for each RMSNorm of a sum of two equal shapes and for the sum. */
export function skipNorms(nodes: readonly Node[]): Node[] {
  const norms = new Map<Node, Node>() // by the sum
  for (const node of nodes) {
    const sum = node.op === 'SimplifiedLayerNormalization' && sumOf(node.inputs[0]!)
    if (sum && !norms.has(sum)) norms.set(sum, node)
  }
  const gone = new Set(norms.values())
  return nodes.flatMap((node) => {
    if (gone.has(node)) return []
    const norm = norms.get(node)
    if (!norm) return [node]
    return {
      op: 'SkipSimplifiedLayerNormalization',
      domain: 'com.microsoft' as const,
      inputs: [...node.inputs, norm.inputs[1]],
      outputs: [norm.outputs[0], undefined, undefined, node.outputs[0]],
      attributes: { epsilon: norm.attributes.epsilon! },
    }
  })
}

function sumOf({ source }: Value): Node | undefined {
  if (source.type !== 'node' || source.node.op !== 'Add') return undefined
  const [a, b] = source.node.inputs
  return String(a!.dims) === String(b!.dims) ? source.node : undefined
}
