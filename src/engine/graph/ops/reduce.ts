// Sums and means along axes, and the operators that are made of them: softmax and the norms.

import {
  type Dims,
  emit,
  emitOne,
  ints,
  scalar,
  size,
  staticDims,
  type Value,
  withGradient,
} from '../graph.ts'
import { add, mul, sub } from './elementwise.ts'

/** `x` broadcast to the shape of `like`: the mirror of a sum. */
export function expand(x: Value, like: Value): Value {
  const known = like.dims.every((d) => typeof d === 'number')
  const shape = known
    ? ints(...staticDims(like.dims))
    : emitOne('Shape', [like], { dtype: 'int64', dims: [like.dims.length] })
  return emitOne('Expand', [x, shape], { dtype: x.dtype, dims: like.dims })
}

const kept = (dims: Dims, axes: readonly number[]): Dims =>
  dims.map((d, i) => (axes.includes(i) ? 1 : d))

const reduction =
  (op: string, share: (x: Value, axes: readonly number[]) => number) =>
  (x: Value, axes: readonly number[]): Value => {
    const at = axes.map((a) => (a < 0 ? a + x.dims.length : a))
    const type = { dtype: x.dtype, dims: kept(x.dims, at) }
    const y = emitOne(op, [x, ints(...at)], type, { attributes: { keepdims: 1 } })
    return withGradient(op, y, [x], (dy) => {
      const c = share(x, at)
      return [expand(c === 1 ? dy : mul(dy, scalar(c)), x)]
    })
  }

/** Sum along axes, which stay as 1. */
export const reduceSum = reduction('ReduceSum', () => 1)

/** Mean along axes of static size, which stay as 1. */
export const reduceMean = reduction(
  'ReduceMean',
  (x, axes) => 1 / size(axes.map((a) => x.dims[a]!)),
)

/** The sum of all elements, as a scalar. */
export function sumAll(x: Value): Value {
  const y = emitOne('ReduceSum', [x], { dtype: x.dtype, dims: [] }, { attributes: { keepdims: 0 } })
  return withGradient('ReduceSum', y, [x], (dy) => [expand(dy, x)])
}

/** y = softmax(x) along the last axis   ⇒   dx = y·(dy − Σ dy·y) */
export function softmax(x: Value): Value {
  const y = emitOne('Softmax', [x], x, { attributes: { axis: -1 } })
  return withGradient('Softmax', y, [x], (dy) => [mul(y, sub(dy, reduceSum(mul(dy, y), [-1])))])
}

/** Root-mean-square norm of x [N, D] with weight [D] (arXiv 1910.07467), fused; its gradient uses the 1/rms that it gives too. */
export function rmsNorm(x: Value, weight: Value, eps: number): Value {
  const rows = { dtype: x.dtype, dims: kept(x.dims, [x.dims.length - 1]) }
  const [y, s] = emit('SimplifiedLayerNormalization', [x, weight], [x, rows], {
    attributes: { axis: -1, epsilon: { float: eps }, stash_type: 1 },
  }) as [Value, Value]
  // s = 1/rms   ⇒   dx = s·(dy·w − x·s·mean(dy·y)),   dw = Σ dy·x·s
  return withGradient('RMSNorm', y, [x, weight], (dy) => {
    const along = mul(reduceMean(mul(dy, y), [-1]), s)
    const dx = mul(sub(mul(dy, weight), mul(x, along)), s)
    const lead = ints(...x.dims.slice(0, -1).map((_, i) => i))
    const dw = emitOne('ReduceSum', [mul(dy, mul(x, s)), lead], weight, {
      attributes: { keepdims: 0 },
    })
    return [dx, dw]
  })
}

/** Layer norm of x [N, D] with weight and bias [D] (arXiv 1607.06450), fused going forward; its parts made anew going back. */
export function layerNorm(x: Value, weight: Value, bias: Value, eps: number): Value {
  const y = emitOne('LayerNormalization', [x, weight, bias], x, {
    attributes: { axis: -1, epsilon: { float: eps } },
  })
  // n = (x − mean)/σ, g = dy·w   ⇒   dx = (g − mean(g) − n·mean(g·n)) / σ,   dw = Σ dy·n,   db = Σ dy
  return withGradient('LayerNorm', y, [x, weight, bias], (dy) => {
    const centred = emitOne('Sub', [x, reduceMean(x, [-1])], x)
    const variance = reduceMean(mul(centred, centred), [-1])
    const deviation = emitOne('Sqrt', [add(variance, scalar(eps))], variance)
    const n = emitOne('Div', [centred, deviation], x)
    const g = mul(dy, weight)
    const along = sub(sub(g, reduceMean(g, [-1])), mul(n, reduceMean(mul(g, n), [-1])))
    const dx = emitOne('Div', [along, deviation], x)
    const lead = ints(...x.dims.slice(0, -1).map((_, i) => i))
    const sum = (v: Value): Value =>
      emitOne('ReduceSum', [v, lead], weight, { attributes: { keepdims: 0 } })
    return [dx, sum(mul(dy, n)), sum(dy)]
  })
}
