// In which precision a frozen base is served: as it is, in training's int8, or in blocks of four bits.

import * as op from '../graph/ops/ops.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { MappedInt4 } from '../weights/int4.ts'
import { blockKey, type MappedInt8 } from '../weights/int8.ts'
import { int4Products } from './int4.ts'
import { int8Products, type Products, plainProducts, productsOf } from './products.ts'

/** The weights of a base as they are served: `int8` in `mapped` is the very file that training multiplies with. */
export interface ServedWeights {
  readonly mapped: MappedWeights
  readonly int4?: MappedInt4 | undefined
  /** What prompts are multiplied with beside `int4`: products of many rows are faster in eight bits. */
  readonly prompts?: MappedInt8 | undefined
}

/** How the served graph multiplies with its frozen weights. */
export const productsIn = ({ mapped, int4 }: ServedWeights): Products =>
  int4 ? int4Products(int4) : productsOf(mapped)

/** How the graph that reads prompts does it. `joined`: for adapters, its blocks have the members of those of `productsIn`. */
export function promptProductsIn(served: ServedWeights, joined: boolean): Products {
  const { int4, prompts } = served
  if (!int4 || !prompts) return productsIn(served)
  const products = int8Products(prompts)
  if (!joined) return products
  return (x, ws) => {
    if (!int4.has(blockKey(ws.map(({ path }) => path)))) return plainProducts(x, ws)
    const parts = products(x, ws).map(({ y }) => y)
    return [{ y: op.concat(parts, 1), members: ws }]
  }
}
