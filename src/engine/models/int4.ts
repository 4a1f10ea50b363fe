// The 4-bit copy of a decoder's frozen projections: which of them lie side by side in it, and products with it.

import { external, input } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { MappedTensor, MappedWeights } from '../weights/checkpoint.ts'
import { BLOCK, type Int4Group, type MappedInt4, mapInt4 } from '../weights/int4.ts'
import { blockKey } from '../weights/int8.ts'
import { architectureOf } from './index.ts'
import { type Products, plainProducts } from './products.ts'
import { weightsOf } from './weights.ts'

/** The 4-bit copy of the weights, made when it is first asked for. The head, which is last, keeps eight bits. */
export const int4Of = (weights: MappedWeights, cacheDir: string): Promise<MappedInt4> =>
  mapInt4(weights, cacheDir, groupsOf(weights))

/** What the model multiplies with, in its order: a pass over values that nobody computes. */
function groupsOf(weights: MappedWeights): Int4Group[] {
  const found: Int4Group[] = []
  const recording: Products = (x, ws) => {
    const members = ws.map(({ path }) => path)
    found.push({ key: blockKey(members), members, bits: 4 })
    return plainProducts(x, ws)
  }
  const { config } = weights
  const architecture = architectureOf(config)
  const model = weightsOf(weights, { products: recording })
  const ids = input('ids', 'int64', ['N'])
  const hidden = architecture.hidden({ ids, positions: ids }, model, config, (q) => q)
  model.products(hidden, [architecture.head(model, config)])
  found.push({ ...found.pop()!, bits: 8 })
  return found.filter(({ members }) =>
    members.every((path) => weights.tensors.get(`${path}.weight`)!.dims[1]! % BLOCK === 0),
  )
}

/** Products through the 4-bit copy; a projection that it does not have stays in float32. */
export function int4Products(blocks: MappedInt4): Products {
  const matrix = (tensor: MappedTensor, dtype: 'uint8' | 'float32') =>
    external(tensor.name, { dtype, dims: tensor.dims }, tensor)
  return (x, ws) => {
    const block = blocks.get(blockKey(ws.map(({ path }) => path)))
    if (!block) return plainProducts(x, ws)
    const product = block.bits === 4 ? op.int4Linear : op.halvesLinear
    const y = product(x, {
      quants: matrix(block.quants, 'uint8'),
      scale: matrix(block.scale, 'float32'),
      zeros: matrix(block.zeros, 'uint8'),
    })
    return [{ y, members: ws }]
  }
}
