// Activations of feed-forward layers, fused going forward; going back they make their parts anew from the input.

import { emitOne, scalar, type Value, withGradient } from '../graph.ts'
import { add, erf, exp, mul, neg, scale, sub, tanh } from './elementwise.ts'

/**
 * SwiGLU's product: silu(g) · u, with silu(g) = g·σ(g) (arXiv 2002.05202). Of it only g and u are kept: going back, its parts
 * are made anew, by other operators than going forward, or the runtime would take them for the same.
 */
export function swiglu(g: Value, u: Value): Value {
  const attributes = { alpha: { float: 1 } }
  const silu = emitOne('QuickGelu', [g], g, { domain: 'com.microsoft', attributes })
  const y = emitOne('Mul', [silu, u], g)
  const parts = once(() => {
    const s = emitOne('Sigmoid', [g], g)
    const silu = mul(g, s)
    return { s, silu, y: mul(silu, u) }
  })
  y.anew = () => parts().y
  // u · d silu/dg = u·(σ + silu·(1 − σ)) = y + σ·(u − y)
  return withGradient('SwiGLU', y, [g, u], (dy) => {
    const { s, silu, y } = parts()
    return [mul(dy, add(y, mul(s, sub(u, y)))), mul(dy, silu)]
  })
}

/** make(), called when it is first asked for. */
function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => {
    made ??= make()
    return made
  }
}

/** GELU: x·Φ(x), with Φ the normal distribution (arXiv 1606.08415). */
export function gelu(x: Value): Value {
  const y = emitOne('Gelu', [x], x, { domain: 'com.microsoft' })
  // dx = dy·(Φ + x·φ),   Φ = (1 + erf(x/√2))/2,   φ = e^(−x²/2)/√(2π)
  return withGradient('Gelu', y, [x], (dy) => {
    const cumulative = scale(add(erf(scale(x, Math.SQRT1_2)), scalar(1)), 0.5)
    const density = scale(exp(neg(scale(mul(x, x), 0.5))), 1 / Math.sqrt(2 * Math.PI))
    return [mul(dy, add(cumulative, mul(x, density)))]
  })
}

const CUBIC = 0.044715

/** GELU by its tanh: x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2, which Hugging Face calls gelu_new. */
export function geluNew(x: Value): Value {
  const y = emitOne('FastGelu', [x], x, { domain: 'com.microsoft' })
  // u = c·(x + a·x³), t = tanh u   ⇒   dx = dy·((1 + t)/2 + x·(1 − t²)·c·(1 + 3a·x²)/2)
  return withGradient('FastGelu', y, [x], (dy) => {
    const c = Math.sqrt(2 / Math.PI)
    const square = mul(x, x)
    const t = tanh(mul(scale(x, c), add(scale(square, CUBIC), scalar(1))))
    const slope = add(scale(square, 3 * CUBIC * c), scalar(c))
    const inner = mul(mul(x, sub(scalar(1), mul(t, t))), slope)
    return [mul(dy, scale(add(add(t, scalar(1)), inner), 0.5))]
  })
}
