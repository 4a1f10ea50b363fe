// How a model multiplies with its frozen weights: the one place that knows in which precision they are kept.

import { external, type Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { MappedTensor, MappedWeights, ModelConfig } from '../weights/checkpoint.ts'
import { blockKey, type MappedInt8 } from '../weights/int8.ts'
import { familyOf } from '../weights/model-config.ts'
import type { Weights } from './weights.ts'

/** Some projections of one input whose results lie side by side in one matrix y [N, Σ out]. */
export interface Block {
  readonly y: Value
  readonly members: readonly Weights[]
}

/** From x [N, in] and the projections that read it to their results, in the same order. No adapter is added. */
export type Products = (x: Value, ws: readonly Weights[]) => readonly Block[]

/** Each projection for itself, in the weights' own float32. */
export const plainProducts: Products = (x, ws) =>
  ws.map((w) => ({ y: op.linear(x, w.get('weight')), members: [w] }))

/** Products through the int8 copy; a projection that it does not have stays in float32. */
export function int8Products(blocks: MappedInt8): Products {
  const known = new Map<string, Value>()
  const weight = (tensor: { name: string }, make: () => Value): Value => {
    const value = known.get(tensor.name) ?? make()
    known.set(tensor.name, value)
    return value
  }
  return (x, ws) => {
    const block = blocks.get(blockKey(ws.map((w) => w.path)))
    if (!block) return plainProducts(x, ws)
    const mapped = (tensor: MappedTensor, dtype: 'int8' | 'float32') =>
      weight(tensor, () => external(tensor.name, { dtype, dims: tensor.dims }, tensor))
    const ys = op.int8Linears(
      x,
      mapped(block.smoothing, 'float32'),
      block.pieces.map((piece) => ({
        forward: mapped(piece.forward, 'int8'),
        forward_scale: mapped(piece.forward_scale, 'float32'),
        backward: mapped(piece.backward, 'int8'),
        backward_scale: mapped(piece.backward_scale, 'float32'),
      })),
    )
    let from = 0
    return block.pieces.map(({ members }, i) => {
      from += members.length
      return { y: ys[i]!, members: ws.slice(from - members.length, from) }
    })
  }
}

/** The int8 copy [out, in] of one projection by itself, with a scale for each column [in]; undefined where it has none. */
export function int8Rows(
  blocks: MappedInt8 | undefined,
  { path }: Weights,
): { steps: Value; scale: Value } | undefined {
  const piece = blocks?.get(blockKey([path]))?.pieces[0]
  if (!piece) return undefined
  const value = (tensor: MappedTensor, dtype: 'int8' | 'float32') =>
    external(tensor.name, { dtype, dims: tensor.dims }, tensor)
  return { steps: value(piece.backward, 'int8'), scale: value(piece.backward_scale, 'float32') }
}

/** Each projection of a block in float16; what is none, the head, stays in float32. */
const halfProducts =
  (config: ModelConfig): Products =>
  (x, ws) =>
    ws.map((w) => {
      const isProjection = familyOf(config).linear.some((name) => w.path.endsWith(`.${name}`))
      const product = isProjection ? op.halfLinear : op.linear
      return { y: product(x, w.get('weight')), members: [w] }
    })

/** In the precision that the weights are given in. */
export const productsOf = ({
  config,
  int8,
  half,
}: Pick<MappedWeights, 'config' | 'int8' | 'half'>): Products =>
  int8 ? int8Products(int8) : half ? halfProducts(config) : plainProducts
