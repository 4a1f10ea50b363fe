// Operators that work on each element alone, with broadcasting.

import { type Dims, emitOne, ints, scalar, type Value, withGradient } from '../graph.ts'

/** The shape that two shapes broadcast to; throws where they cannot. */
export function broadcast(a: Dims, b: Dims): Dims {
  const rank = Math.max(a.length, b.length)
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1
    const y = b[i - rank + b.length] ?? 1
    if (x !== y && x !== 1 && y !== 1)
      throw new Error(`shapes do not broadcast: [${a}] and [${b}], ${x} against ${y}`)
    return x === 1 ? y : x
  })
}

/** Sums a gradient back to the shape that was broadcast. */
export function unbroadcast(dy: Value, dims: Dims): Value {
  const lead = dy.dims.length - dims.length
  const axes = dy.dims.flatMap((d, i) => (i < lead || (dims[i - lead] === 1 && d !== 1) ? [i] : []))
  if (axes.length === 0) return dy
  const kept = dy.dims.map((d, i) => (axes.includes(i) ? 1 : d))
  const summed = emitOne('ReduceSum', [dy, ints(...axes)], { dtype: dy.dtype, dims: kept })
  if (lead === 0) return summed
  const leading = ints(...Array.from({ length: lead }, (_, i) => i))
  return emitOne('Squeeze', [summed, leading], { dtype: dy.dtype, dims })
}

const binary =
  (op: string, gradient: (dy: Value, a: Value, b: Value, y: Value) => [Value, Value]) =>
  (a: Value, b: Value): Value => {
    const y = emitOne(op, [a, b], { dtype: a.dtype, dims: broadcast(a.dims, b.dims) })
    return withGradient(op, y, [a, b], (dy) => {
      const [da, db] = gradient(dy, a, b, y)
      return [unbroadcast(da, a.dims), unbroadcast(db, b.dims)]
    })
  }

const unary =
  (op: string, gradient: (dy: Value, x: Value, y: Value) => Value) =>
  (x: Value): Value => {
    const y = emitOne(op, [x], x)
    return withGradient(op, y, [x], (dy) => [gradient(dy, x, y)])
  }

const comparison =
  (op: string) =>
  (a: Value, b: Value): Value =>
    emitOne(op, [a, b], { dtype: 'bool', dims: broadcast(a.dims, b.dims) })

/** a + b */
export const add = binary('Add', (dy) => [dy, dy])

/** a − b */
export const sub = binary('Sub', (dy) => [dy, neg(dy)])

/** a · b   ⇒   da = dy·b,   db = dy·a */
export const mul = binary('Mul', (dy, a, b) => [mul(dy, b), mul(dy, a)])

/** y = a / b   ⇒   da = dy/b,   db = −da·y */
export const div = binary('Div', (dy, _a, b, y) => {
  const da = div(dy, b)
  return [da, neg(mul(da, y))]
})

/** −x */
export const neg = unary('Neg', (dy) => neg(dy))

/** eˣ   ⇒   dx = dy·y */
export const exp = unary('Exp', (dy, _x, y) => mul(dy, y))

/** ln x   ⇒   dx = dy/x */
export const log = unary('Log', (dy, x) => div(dy, x))

/** y = √x   ⇒   dx = dy / 2y */
export const sqrt = unary('Sqrt', (dy, _x, y) => div(dy, mul(y, scalar(2))))

/** y = 1/(1+e⁻ˣ)   ⇒   dx = dy·(y − y²) */
export const sigmoid = unary('Sigmoid', (dy, _x, y) => mul(dy, sub(y, mul(y, y))))

/** y = tanh x   ⇒   dx = dy·(1 − y²) */
export const tanh = unary('Tanh', (dy, _x, y) => mul(dy, sub(scalar(1), mul(y, y))))

/** y = erf x   ⇒   dx = dy · 2/√π · e^(−x²) */
export const erf = unary('Erf', (dy, x) =>
  mul(dy, mul(exp(neg(mul(x, x))), scalar(2 / Math.sqrt(Math.PI)))),
)

/** max(x, 0)   ⇒   dx = dy where y > 0 */
export const relu = unary('Relu', (dy, _x, y) => mul(dy, toFloat(greater(y, scalar(0)))))

/** ln(1 + eˣ)   ⇒   dx = dy·σ(x) */
export const softplus = unary('Softplus', (dy, x) => mul(dy, sigmoid(x)))

/** x · c for a number c. */
export const scale = (x: Value, c: number): Value => (c === 1 ? x : mul(x, scalar(c)))

/** a = b, element by element → bool. */
export const equal = comparison('Equal')

/** a > b → bool. */
export const greater = comparison('Greater')

/** a ≥ b → bool. */
export const greaterOrEqual = comparison('GreaterOrEqual')

/** a and b → bool. */
export const and = comparison('And')

/** a where the condition holds, b elsewhere. */
export function where(condition: Value, a: Value, b: Value): Value {
  const dims = broadcast(condition.dims, broadcast(a.dims, b.dims))
  const y = emitOne('Where', [condition, a, b], { dtype: a.dtype, dims })
  return withGradient('Where', y, [condition, a, b], (dy) => [
    undefined,
    unbroadcast(where(condition, dy, scalar(0)), a.dims),
    unbroadcast(where(condition, scalar(0), dy), b.dims),
  ])
}

/** Booleans or integers as float32; no gradient flows. */
export const toFloat = (x: Value): Value =>
  emitOne('Cast', [x], { dtype: 'float32', dims: x.dims }, { attributes: { to: 1 } })
