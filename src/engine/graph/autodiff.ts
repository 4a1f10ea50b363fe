// Reverse mode, in one screen. Operators bring their rules; this file walks, sums and prunes.

import { float32 } from '../tensor.ts'
import { constant, size, staticDims, type Value } from './graph.ts'
import { add } from './ops/elementwise.ts'
import { plus } from './ops/products.ts'
import { concat } from './ops/shape.ts'

/**
 * Gradients of `y` with respect to each of `wrt`, as values of the same graph.
 * Nothing is computed for values that do not lead from `wrt` to `y`. `dy` defaults to ones.
 * Throws where a path goes through an operator without a gradient, and for inputs that `y` does not use.
 */
export function gradients(y: Value, wrt: readonly Value[], dy: Value = ones(y)): Value[] {
  const path = pathBetween(wrt, y)
  const collected = new Map<Value, Value[]>([[y, [dy]]])
  const asked = new Set(wrt)
  let fresh: Value[] = []
  const settled = () => {
    const some = fresh
    fresh = []
    return some
  }

  for (const v of [...path].sort((a, b) => b.id - a.id)) {
    const parts = collected.get(v)
    if (!parts || !v.origin?.inputs.some((i) => path.has(i))) continue
    const { name, inputs, gradient: rule } = v.origin
    if (!rule) throw new Error(`autodiff: ${name} has no gradient`)
    rule(total(parts), settled).forEach((d, i) => {
      const input = inputs[i]!
      if (!d || !path.has(input)) return
      collected.set(input, [...(collected.get(input) ?? []), d])
      if (asked.has(input)) fresh.push(d)
    })
  }

  return wrt.map((w, i) => {
    const parts = collected.get(w)
    if (!parts) throw new Error(`autodiff: input ${i} does not reach the output`)
    return total(parts)
  })
}

/** The sum of what a value's users sent back. Pieces that lie side by side are joined: nothing to add. */
function total(parts: readonly Value[]): Value {
  const pieces = parts.flatMap(({ piece }) => piece ?? []).sort((a, b) => a.before - b.before)
  const axis = pieces[0]?.axis ?? 0
  let end = 0
  for (const p of pieces) {
    if (p.axis !== axis || p.before !== end) return sum(parts)
    end += p.inner.dims[axis] as number
  }
  if (pieces.length < parts.length || pieces.at(-1)!.after !== 0) return sum(parts)
  return concat(
    pieces.map((p) => p.inner),
    axis,
  )
}

/** All added up: to a product, if one of them is one, which adds the rest as it goes. */
function sum(parts: readonly Value[]): Value {
  for (const [i, part] of parts.entries()) {
    const rest = parts.filter((_, j) => j !== i)
    const all = rest.length > 0 && plus(part, () => rest.reduce(add))
    if (all) return all
  }
  return parts.reduce(add)
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
