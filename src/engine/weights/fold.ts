// A low-rank adapter folded into the weight that it adapts. Knows numbers only; no file.

import type { AdapterConfig, LoraPair } from './adapter.ts'

/**
 * Adds scale · B·A to `weight` [out, in], in place and row by row; with DoRA (arXiv 2402.09353) every row then gets the
 * length that its magnitude says. Sums are taken in float64. Throws where the shapes differ.
 */
export function foldAdapter(
  weight: Float32Array,
  { a, b, magnitude, in_features: inner, out_features: out }: LoraPair,
  config: Pick<AdapterConfig, 'r' | 'lora_alpha' | 'use_rslora'>,
): void {
  const { r, lora_alpha, use_rslora } = config
  if (weight.length !== out * inner)
    throw new Error(`an adapter of [${out}, ${inner}] does not fit ${weight.length} weights`)
  const scale = lora_alpha / (use_rslora ? Math.sqrt(r) : r)
  const row = new Float64Array(inner)
  for (let o = 0; o < out; o++) {
    row.fill(0)
    for (let k = 0; k < r; k++) {
      const factor = b[o * r + k]!
      if (factor === 0) continue
      for (let i = 0; i < inner; i++) row[i]! += factor * a[k * inner + i]!
    }
    const at = o * inner
    let squares = 0
    for (let i = 0; i < inner; i++) {
      row[i] = weight[at + i]! + scale * row[i]!
      squares += row[i]! * row[i]!
    }
    const gain = magnitude ? magnitude[o]! / Math.sqrt(squares) : 1
    for (let i = 0; i < inner; i++) weight[at + i] = gain * row[i]!
  }
}
