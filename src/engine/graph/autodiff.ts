// Reverse mode, in one screen. Operators bring their rules; this file walks, sums and prunes.

import { float32 } from '../tensor.ts'
import { constant, size, staticDims, type Value } from './graph.ts'
import { add } from './ops/elementwise.ts'

/**
 * Gradients of `y` with respect to each of `wrt`, as values of the same graph.
 * Nothing is computed for values that do not lead from `wrt` to `y`. `dy` defaults to ones.
 * Throws where a path goes through an operator without a gradient, and for inputs that `y` does not use.
 */
export function gradients(y: Value, wrt: readonly Value[], dy: Value = ones(y)): Value[] {
  const path = pathBetween(wrt, y)
  const collected = new Map<Value, Value>([[y, dy]])

  for (const v of [...path].sort((a, b) => b.id - a.id)) {
    const gradient = collected.get(v)
    if (!gradient || !v.origin?.inputs.some((i) => path.has(i))) continue
    const { name, inputs, gradient: rule } = v.origin
    if (!rule) throw new Error(`autodiff: ${name} has no gradient`)
    rule(gradient).forEach((d, i) => {
      const input = inputs[i]!
      if (!d || !path.has(input)) return
      const before = collected.get(input)
      collected.set(input, before ? add(before, d) : d)
    })
  }

  return wrt.map((w, i) => {
    const gradient = collected.get(w)
    if (!gradient) throw new Error(`autodiff: input ${i} does not reach the output`)
    return gradient
  })
}

/** The values on some way from `wrt` to `y`. */
function pathBetween(wrt: readonly Value[], y: Value): Set<Value> {
  const below = new Set<Value>()
  const stack = [y]
  while (stack.length > 0) {
    const v = stack.pop()!
    if (below.has(v)) continue
    below.add(v)
    stack.push(...(v.origin?.inputs ?? []))
  }
  const path = new Set<Value>(wrt.filter((w) => below.has(w)))
  for (const v of [...below].sort((a, b) => a.id - b.id))
    if (v.origin?.inputs.some((i) => path.has(i))) path.add(v)
  return path
}

const ones = (y: Value): Value =>
  constant(float32(staticDims(y.dims), new Float32Array(size(y.dims)).fill(1)))
