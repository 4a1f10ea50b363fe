// What the runtime is told about memory that the graph alone does not say: what waits for what, what is not copied.

import { emitOne, ints, staticDims, type Value } from './graph.ts'
import { add } from './ops/elementwise.ts'
import { sumAll } from './ops/reduce.ts'
import { reshape, slice } from './ops/shape.ts'

/**
 * x, computed after the others, which lend it nothing but that. `always` [1] is true, and the runtime must not know
 * it beforehand.
 */
export function after(x: Value, others: readonly Value[], always: Value): Value {
  if (others.length === 0) return x
  const sum = others.map(oneNumber).reduce(add)
  return emitOne('Where', [always, x, sum], x)
}

/** Any number made of x, which may have no elements where its shape is only known at run time. */
function oneNumber(x: Value): Value {
  if (x.dims.some((d) => typeof d === 'string')) return sumAll(x)
  const corner = x.dims.reduce<Value>((part, _, axis) => slice(part, axis, 0, 1), x)
  return reshape(corner, [1])
}

/** A weight of which no packed copy is made: to the runtime it is no constant. Its memory is the weight's own. */
export function unpacked(weight: Value, always: Value): Value {
  const dims = ints(...staticDims(weight.dims))
  const shape = emitOne('Where', [always, dims, dims], dims)
  return emitOne('Reshape', [weight, shape], weight)
}
