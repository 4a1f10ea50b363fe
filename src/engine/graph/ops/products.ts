// Matrix products.

import { anew, type Dim, type Dims, emitOne, type Value, withGradient } from '../graph.ts'
import { broadcast, unbroadcast } from './elementwise.ts'
import { transpose } from './shape.ts'

/** a [..., M, K] · b [..., K, N] → [..., M, N] */
export const matmul = (a: Value, b: Value): Value => batchedGemm(a, b)

export interface MatmulOptions {
  transA?: boolean
  transB?: boolean
  alpha?: number
}

/**
 * alpha · op(a)·op(b) for matrices in batches that broadcast, op(x) being x or x with its last two axes swapped. The swap is part of the
 * product, so nothing is moved for it.
 */
export function batchedGemm(a: Value, b: Value, options: MatmulOptions = {}): Value {
  const { transA = false, transB = false, alpha = 1 } = options
  const ends = (x: Value, swapped: boolean) =>
    (swapped ? x.dims.slice(-2).reverse() : x.dims.slice(-2)) as [Dim, Dim]
  const [m, k] = ends(a, transA)
  const [k2, n] = ends(b, transB)
  if (k !== k2)
    throw new Error(
      `MatMul: inner dims differ, [${a.dims}]${transA ? 'ᵀ' : ''} · [${b.dims}]${transB ? 'ᵀ' : ''}`,
    )
  const batch: Dims = broadcast(a.dims.slice(0, -2), b.dims.slice(0, -2))
  const type = { dtype: a.dtype, dims: [...batch, m, n] }
  const attributes = {
    transA: Number(transA),
    transB: Number(transB),
    alpha: { float: alpha },
  }
  const y =
    transA || transB || alpha !== 1
      ? emitOne('FusedMatMul', [a, b], type, { domain: 'com.microsoft', attributes })
      : emitOne('MatMul', [a, b], type)
  // y = α·A·B with A = op(a), B = op(b)   ⇒   dA = α·dy·Bᵀ,   dB = α·Aᵀ·dy
  return withGradient('MatMul', y, [a, b], (dy) => [
    unbroadcast(
      transA
        ? batchedGemm(b, dy, { transA: transB, transB: true, alpha })
        : batchedGemm(dy, b, { transB: !transB, alpha }),
      a.dims,
    ),
    unbroadcast(
      transB
        ? batchedGemm(dy, a, { transA: true, transB: transA, alpha })
        : batchedGemm(a, dy, { transA: !transA, alpha }),
      b.dims,
    ),
  ])
}

/** Swaps the last two axes. */
export function transposeLast(x: Value): Value {
  const r = x.dims.length
  return transpose(x, [...Array.from({ length: r - 2 }, (_, i) => i), r - 1, r - 2])
}

export interface GemmOptions {
  transA?: boolean
  transB?: boolean
  alpha?: number
  /** Added to the product; of the product's shape. */
  c?: Value
}

/** alpha · op(a)·op(b) + c for matrices, op(x) being x or xᵀ. */
export function gemm(a: Value, b: Value, options: GemmOptions = {}): Value {
  const { transA = false, transB = false, alpha = 1, c } = options
  const [m, k] = transA ? [a.dims[1], a.dims[0]] : a.dims
  const [k2, n] = transB ? [b.dims[1], b.dims[0]] : b.dims
  if (a.dims.length !== 2 || b.dims.length !== 2 || k !== k2)
    throw new Error(
      `Gemm: inner dims differ, [${a.dims}]${transA ? 'ᵀ' : ''} · [${b.dims}]${transB ? 'ᵀ' : ''}`,
    )
  const inputs = c ? [a, b, c] : [a, b]
  const attributes = {
    transA: Number(transA),
    transB: Number(transB),
    alpha: { float: alpha },
  }
  const y = emitOne('Gemm', inputs, { dtype: a.dtype, dims: [m!, n!] }, { attributes })
  // y = α·A·B + c with A = op(a), B = op(b)   ⇒   dA = α·dy·Bᵀ,   dB = α·Aᵀ·dy,   dc = dy
  return withGradient('Gemm', y, inputs, (dy) => [
    transA
      ? gemm(b, dy, { transA: transB, transB: true, alpha })
      : gemm(dy, b, { transB: !transB, alpha }),
    transB
      ? isTall(b)
        ? transposeLast(batchedGemm(anew(a), dy, { transA: !transA, alpha }))
        : gemm(dy, anew(a), { transA: true, transB: transA, alpha })
      : gemm(anew(a), dy, { transA: !transA, alpha }),
    dy,
  ])
}

/**
 * Rows for each column from which it is faster to compute a matrix's transpose and to move that. As a Gemm the runtime would
 * take the two for one product again.
 */
const TALL = 128

const isTall = ({ dims: [rows, columns] }: Value): boolean => Number(rows) >= TALL * Number(columns)

/** y + c() where y is a product by `gemm` that adds nothing yet: then c, of y's shape, is added within it. */
export function plus(y: Value, c: () => Value): Value | undefined {
  if (y.source.type !== 'node') return undefined
  const { op, inputs, attributes } = y.source.node
  if (op !== 'Gemm' || inputs.length !== 2) return undefined
  return emitOne('Gemm', [...inputs, c()], y, { attributes: { ...attributes } })
}

/** x [N, in] · weightᵀ with weight [out, in], as checkpoints store it → [N, out] */
export const linear = (x: Value, weight: Value): Value => gemm(x, weight, { transB: true })
