// The frequencies of the rotary embedding, scaled as the model's config has it. Factors as Hugging Face rounds them.

import type { ModelConfig } from '../weights/checkpoint.ts'

/** One frequency for each pair of a head's dimensions; undefined where the family does not rotate. */
export function rotaryFrequencies(config: ModelConfig): Float32Array | undefined {
  const { rope_theta, rope_scaling, head_dim } = config
  if (rope_theta === undefined) return undefined
  const plain = Float32Array.from(
    { length: head_dim / 2 },
    (_, i) => 1 / Math.fround(rope_theta ** ((2 * i) / head_dim)),
  )
  if (!rope_scaling) return plain
  switch (rope_scaling.rope_type) {
    case 'linear':
      return plain.map((f) => f / rope_scaling.factor)
    case 'factors':
      return plain.map((f, i) => f / rope_scaling.factors[i]!)
    case 'llama3':
      return plain.map((f) => llama3(f, rope_scaling))
    default:
      return rope_scaling satisfies never
  }
}

/** Long waves are stretched by `factor`, short ones stay, those between go over smoothly (Llama 3.1). */
function llama3(
  frequency: number,
  scaling: {
    factor: number
    low_freq_factor: number
    high_freq_factor: number
    original_max_position_embeddings: number
  },
): number {
  const { factor, low_freq_factor: low, high_freq_factor: high } = scaling
  const turns = (scaling.original_max_position_embeddings * frequency) / (2 * Math.PI) // in the old context
  if (turns > high) return frequency
  if (turns < low) return frequency / factor
  const smooth = (turns - low) / (high - low)
  return ((1 - smooth) * frequency) / factor + smooth * frequency
}
