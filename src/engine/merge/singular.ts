// The largest singular values of a matrix with their vectors: Golub, Kahan and Lanczos' bidiagonalisation with full
// reorthogonalisation (Golub & Van Loan, Matrix Computations, §10.4). Sums in float64.

import { uniform } from '../random.ts'

/** M ≈ Σ values[k] · left[k] · right[k]ᵀ, the largest first; vectors are of length 1. */
export interface Singular {
  readonly values: readonly number[]
  readonly left: readonly Float64Array[]
  readonly right: readonly Float64Array[]
}

/** What the sum of the kept products may be off by, of the largest singular value. */
const TOLERANCE = 1e-7
/** Below this, of the largest: nothing is left. */
const NOTHING = 1e-13

/**
 * Of `matrix` [out, in] the `rank` largest, fewer where it has no more. Signs are settled: the largest element of each
 * left vector is positive.
 */
export function largestSingular(
  matrix: Float32Array,
  { out, inner, rank }: { out: number; inner: number; rank: number },
): Singular {
  const most = Math.min(out, inner)
  const wanted = Math.min(rank, most)
  const v: Float64Array[] = []
  const u: Float64Array[] = []
  const alpha: number[] = []
  const beta: number[] = []
  let largest = 0
  let draws = 0
  /** A direction that rows of the matrix have and none of `v` has; undefined where there is none. */
  const fresh = (): Float64Array | undefined => {
    const x = Float64Array.from({ length: out }, () => uniform(0, 0, draws++) - 0.5)
    const start = timesTransposed(matrix, x)
    const length = norm(start)
    deflate(start, v)
    const left = norm(start)
    if (left === 0 || left <= NOTHING * Math.max(length, largest)) return undefined
    return scaled(start, 1 / left)
  }
  let next = fresh()
  let check = Math.min(most, wanted + 8)
  while (next && v.length < most) {
    v.push(next)
    const k = v.length - 1
    const x = times(matrix, next, out)
    deflate(x, u)
    const a = norm(x)
    largest = Math.max(largest, a)
    alpha.push(a <= NOTHING * largest ? 0 : a)
    // A row without a value ends what was found; its place is kept by zeros.
    u.push(alpha[k] === 0 ? new Float64Array(out) : scaled(x, 1 / a))
    const y = timesTransposed(matrix, u[k]!)
    deflate(y, v)
    const b = norm(y)
    largest = Math.max(largest, b)
    if (b > NOTHING * largest) {
      beta.push(b)
      next = scaled(y, 1 / b)
    } else {
      beta.push(0)
      next = fresh()
    }
    if (v.length < check || v.length === most || !next) continue
    if (beta[k] !== 0 && isSettled(alpha, beta, wanted)) break
    check = Math.min(most, Math.ceil(check * 1.3))
  }
  const { values, vectors } = tridiagonalOf(alpha, beta)
  const found: { value: number; left: Float64Array; right: Float64Array }[] = []
  for (let i = 0; i < Math.min(wanted, values.length); i++) {
    const right = new Float64Array(inner)
    for (const [j, basis] of v.entries()) addScaled(right, basis, vectors[i]![j]!)
    const left = times(matrix, scaled(right, 1 / norm(right)), out)
    const value = norm(left)
    if (value <= NOTHING * largest || value === 0) break
    const sign = largestElement(left) < 0 ? -1 : 1
    scaled(left, sign / value)
    scaled(right, sign)
    found.push({ value, left, right })
  }
  found.sort((a, b) => b.value - a.value)
  return {
    values: found.map(({ value }) => value),
    left: found.map(({ left }) => left),
    right: found.map(({ right }) => right),
  }
}

/** Whether going on would move the sum of the first `wanted` products by less than the tolerance. */
function isSettled(alpha: readonly number[], beta: readonly number[], wanted: number): boolean {
  const { values, vectors } = tridiagonalOf(alpha, beta)
  const k = alpha.length - 1
  const sigma = values.map((square) => Math.sqrt(Math.max(0, square)))
  const [first = 0] = sigma
  const beyond = sigma[wanted] ?? 0
  for (let i = 0; i < wanted; i++) {
    const value = sigma[i]!
    if (value <= NOTHING * first) continue
    const residual = (beta[k]! * alpha[k]! * Math.abs(vectors[i]![k]!)) / value
    const turned = Math.min(1, residual / Math.max(value - beyond, Number.MIN_VALUE))
    if (value * turned > TOLERANCE * first) return false
  }
  return true
}

/**
 * The eigenvalues of BᵀB in descending order, and their vectors, of the upper bidiagonal B: a tridiagonal matrix, by
 * QL with implicit shifts (EISPACK's tql2).
 */
function tridiagonalOf(alpha: readonly number[], beta: readonly number[]) {
  const n = alpha.length
  const d = Float64Array.from(alpha, (a, i) => a * a + (i > 0 ? beta[i - 1]! ** 2 : 0))
  // e[i] lies between i and i + 1.
  const e = Float64Array.from({ length: n }, (_, i) => (i < n - 1 ? alpha[i]! * beta[i]! : 0))
  // Row i is the i-th vector: rotations go along rows.
  const z = Array.from({ length: n }, (_, i) => {
    const row = new Float64Array(n)
    row[i] = 1
    return row
  })
  for (let l = 0; l < n; l++)
    for (let turns = 0; ; turns++) {
      let m = l
      while (
        m < n - 1 &&
        Math.abs(e[m]!) > Number.EPSILON * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))
      )
        m++
      if (m === l) break
      if (turns === 60) throw new Error('the singular values did not converge')
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!)
      let r = Math.hypot(g, 1)
      g = d[m]! - d[l]! + e[l]! / (g + (g >= 0 ? r : -r))
      let [s, c, p] = [1, 1, 0]
      let i = m - 1
      for (; i >= l; i--) {
        const f = s * e[i]!
        const b = c * e[i]!
        r = Math.hypot(f, g)
        e[i + 1] = r
        if (r === 0) {
          d[i + 1] = d[i + 1]! - p
          e[m] = 0
          break
        }
        s = f / r
        c = g / r
        g = d[i + 1]! - p
        r = (d[i]! - g) * s + 2 * c * b
        p = s * r
        d[i + 1] = g + p
        g = c * r - b
        rotate(z[i]!, z[i + 1]!, c, s)
      }
      if (r === 0 && i >= l) continue
      d[l] = d[l]! - p
      e[l] = g
      e[m] = 0
    }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => d[j]! - d[i]!)
  return { values: order.map((i) => d[i]!), vectors: order.map((i) => z[i]!) }
}

function rotate(low: Float64Array, high: Float64Array, c: number, s: number): void {
  for (let k = 0; k < low.length; k++) {
    const f = high[k]!
    high[k] = s * low[k]! + c * f
    low[k] = c * low[k]! - s * f
  }
}

/** M·x */
function times(matrix: Float32Array, x: Float64Array, out: number): Float64Array {
  const inner = x.length
  const y = new Float64Array(out)
  for (let o = 0; o < out; o++) {
    const at = o * inner
    let [s0, s1] = [0, 0]
    let i = 0
    for (; i + 1 < inner; i += 2) {
      s0 += matrix[at + i]! * x[i]!
      s1 += matrix[at + i + 1]! * x[i + 1]!
    }
    if (i < inner) s0 += matrix[at + i]! * x[i]!
    y[o] = s0 + s1
  }
  return y
}

/** Mᵀ·x */
function timesTransposed(matrix: Float32Array, x: Float64Array): Float64Array {
  const inner = matrix.length / x.length
  const y = new Float64Array(inner)
  for (let o = 0; o < x.length; o++) {
    const factor = x[o]!
    if (factor === 0) continue
    const at = o * inner
    for (let i = 0; i < inner; i++) y[i] = y[i]! + factor * matrix[at + i]!
  }
  return y
}

/** Takes out what lies along `basis`; twice is enough. */
function deflate(x: Float64Array, basis: readonly Float64Array[]): void {
  for (let pass = 0; pass < 2; pass++)
    for (const b of basis) {
      let along = 0
      for (let i = 0; i < x.length; i++) along += x[i]! * b[i]!
      addScaled(x, b, -along)
    }
}

function addScaled(x: Float64Array, y: Float64Array, factor: number): void {
  if (factor !== 0) for (let i = 0; i < x.length; i++) x[i] = x[i]! + factor * y[i]!
}

function scaled(x: Float64Array, factor: number): Float64Array {
  for (let i = 0; i < x.length; i++) x[i] = x[i]! * factor
  return x
}

function norm(x: Float64Array): number {
  let sum = 0
  for (let i = 0; i < x.length; i++) sum += x[i]! * x[i]!
  return Math.sqrt(sum)
}

function largestElement(x: Float64Array): number {
  let most = 0
  for (let i = 0; i < x.length; i++) if (Math.abs(x[i]!) > Math.abs(most)) most = x[i]!
  return most
}
