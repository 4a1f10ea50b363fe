// Activations that are computed once more for their gradient, instead of being kept until then (arXiv 1604.06174).

import { gradients } from './autodiff.ts'
import { type Value, withGradient } from './graph.ts'
import { after } from './order.ts'

/**
 * body(...xs), with nothing kept of it but xs: going back, it is computed once more. That begins only when the gradients
 * of all weights above are computed: the runtime leaves outputs that nothing needs, as those gradients are, for the
 * end, and with them all that they are made of. `weights` are all values that may be learned from; `body` must be the
 * same function each time it is called. `always` [1] is true, and the runtime must not know it beforehand.
 */
export function recomputed(
  xs: readonly Value[],
  body: (...xs: Value[]) => Value,
  weights: Iterable<Value>,
  always: Value,
): Value {
  const y = body(...xs)
  const used = usedBetween(xs, y, new Set(weights))
  return withGradient('Recomputed', y, [...xs, ...used], (dy, settled) => {
    const waited = settled()
    // Without waiting for dy the runtime would compute it right away, or see that it has done so before.
    const again = xs.map((x) => after(x, [dy, ...waited], always))
    return gradients(body(...again), [...again, ...used], dy)
  })
}

/** Those of `weights` that y is made of, without what xs are made of. */
function usedBetween(
  xs: readonly Value[],
  y: Value,
  weights: ReadonlySet<Value>,
): readonly Value[] {
  const seen = new Set(xs)
  const stack = [y]
  for (let v = stack.pop(); v; v = stack.pop()) {
    if (seen.has(v)) continue
    seen.add(v)
    stack.push(...(v.origin?.inputs ?? []))
  }
  return [...weights].filter((w) => seen.has(w) && !xs.includes(w))
}
