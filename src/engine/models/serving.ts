// In which precision a frozen base is served: as it is, in training's int8, or in blocks of four bits.

import type { MappedWeights } from '../weights/checkpoint.ts'
import type { MappedInt4 } from '../weights/int4.ts'
import { int4Products } from './int4.ts'
import { type Products, productsOf } from './products.ts'

/** The weights of a base as they are served: `int8` in `mapped` is the very file that training multiplies with. */
export interface ServedWeights {
  readonly mapped: MappedWeights
  readonly int4?: MappedInt4 | undefined
}

/** How the served graph multiplies with its frozen weights. */
export const productsIn = ({ mapped, int4 }: ServedWeights): Products =>
  int4 ? int4Products(int4) : productsOf(mapped)
