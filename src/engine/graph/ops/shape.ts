// Operators that move elements about and compute nothing.

import { int64 } from '../../tensor.ts'
import {
  constant,
  type Dims,
  emitOne,
  ints,
  staticDims,
  type Value,
  withGradient,
} from '../graph.ts'

/** The same elements under another shape; one size may be named, and is then what the others leave. */
export function reshape(x: Value, dims: Dims): Value {
  const sizes = dims.map((d) => (typeof d === 'string' ? -1 : d))
  const y = emitOne('Reshape', [x, constant(int64([dims.length], sizes))], { dtype: x.dtype, dims })
  return withGradient('Reshape', y, [x], (dy) => [reshape(dy, x.dims)])
}

/** Axes in the order given by `perm`. */
export function transpose(x: Value, perm: readonly number[]): Value {
  const dims = perm.map((p) => x.dims[p]!)
  const y = emitOne('Transpose', [x], { dtype: x.dtype, dims }, { attributes: { perm } })
  const inverse = perm.map((_, i) => perm.indexOf(i))
  return withGradient('Transpose', y, [x], (dy) => [transpose(dy, inverse)])
}

function staticLength(op: string, x: Value, axis: number): number {
  const length = x.dims[axis]
  if (typeof length !== 'number')
    throw new Error(`${op}: axis ${axis} of [${x.dims}] is not static`)
  return length
}

/** x[..., start:end, ...] along one axis of static size. */
export function slice(x: Value, axis: number, start: number, end: number): Value {
  const length = staticLength('Slice', x, axis)
  if (start < 0 || end > length || start >= end)
    throw new Error(`Slice: ${start}:${end} is outside axis ${axis} of [${x.dims}]`)
  if (start === 0 && end === length) return x
  const dims = x.dims.map((d, i) => (i === axis ? end - start : d))
  const y = emitOne('Slice', [x, ints(start), ints(end), ints(axis)], { dtype: x.dtype, dims })
  return withGradient('Slice', y, [x], (dy) => [pad(dy, axis, start, length - end)])
}

/** Zeros before and after along one axis. */
export function pad(x: Value, axis: number, before: number, after: number): Value {
  if (before === 0 && after === 0) return x
  const length = staticLength('Pad', x, axis)
  const pads = new Array<number>(x.dims.length * 2).fill(0)
  pads[axis] = before
  pads[x.dims.length + axis] = after
  const dims = x.dims.map((d, i) => (i === axis ? before + length + after : d))
  const y = emitOne('Pad', [x, ints(...pads)], { dtype: x.dtype, dims })
  y.piece = { inner: x, axis, before, after }
  return withGradient('Pad', y, [x], (dy) => [slice(dy, axis, before, before + length)])
}

/** Values end to end along one axis. */
export function concat(parts: readonly Value[], axis: number): Value {
  if (parts.length === 1) return parts[0]!
  const lengths = parts.map((p) => staticLength('Concat', p, axis))
  const total = lengths.reduce((n, l) => n + l, 0)
  const dims = parts[0]!.dims.map((d, i) => (i === axis ? total : d))
  const y = emitOne('Concat', parts, { dtype: parts[0]!.dtype, dims }, { attributes: { axis } })
  return withGradient('Concat', y, parts, (dy) => split(dy, axis, lengths))
}

/** The parts of x along one axis, of these lengths: the mirror of `concat`. One Slice each, for WebGPU's sake. */
export function split(x: Value, axis: number, lengths: readonly number[]): Value[] {
  let end = 0
  return lengths.map((length) => {
    end += length
    return slice(x, axis, end - length, end)
  })
}

/** Rows of x [N, ...] by index [...] (int64, in range) → [...index, ...]. */
export function gather(x: Value, index: Value): Value {
  // Each row gets the sum of what its copies got: dx = 0 everywhere, then dx[index] += dy. ScatterND would do so from
  // several threads at once and lose some of it (docs/facts.md); ScatterElements goes from one to the next.
  return gatherRows(x, index, (zeros, dy) => {
    const rows = emitOne('Unsqueeze', [index, ints(1)], { dtype: 'int64', dims: [dy.dims[0]!, 1] })
    const everywhere = emitOne('Expand', [rows, shapeOf(dy)], { dtype: 'int64', dims: dy.dims })
    const attributes = { axis: 0, reduction: 'add' }
    return emitOne('ScatterElements', [zeros, everywhere, dy], x, { attributes })
  })
}

/** Rows of x [N, D] by an index [S] that names none of them twice. */
export const pick = (x: Value, index: Value): Value =>
  gatherRows(x, index, (zeros, dy) => {
    const rows = emitOne('Unsqueeze', [index, ints(1)], { dtype: 'int64', dims: [dy.dims[0]!, 1] })
    return emitOne('ScatterND', [zeros, rows, dy], x)
  })

function gatherRows(x: Value, index: Value, scatter: (zeros: Value, dy: Value) => Value): Value {
  const dims = [...index.dims, ...x.dims.slice(1)]
  const y = emitOne('Gather', [x, index], { dtype: x.dtype, dims }, { attributes: { axis: 0 } })
  return withGradient('Gather', y, [x, index], (dy) => {
    if (index.dims.length !== 1 || x.dims.length !== 2)
      throw new Error(
        `autodiff: Gather goes back for a vector of rows of a matrix only, got [${index.dims}] of [${x.dims}]`,
      )
    const shape = constant(int64([x.dims.length], staticDims(x.dims)))
    const zeros = emitOne('ConstantOfShape', [shape], { dtype: 'float32', dims: x.dims })
    return [scatter(zeros, dy), undefined]
  })
}

const shapeOf = (x: Value): Value =>
  x.dims.every((d) => typeof d === 'number')
    ? ints(...staticDims(x.dims))
    : emitOne('Shape', [x], { dtype: 'int64', dims: [x.dims.length] })
