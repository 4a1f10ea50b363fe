// The rotary embedding's fields: transformers 5 writes rope_parameters, older files rope_scaling beside rope_theta.

import type { RopeScaling } from './family.ts'
import type { Fields } from './fields.ts'

/** Base and scaling of the rotary frequencies; refuses kinds that are not computed here. */
export function ropeOf(fields: Fields): { rope_theta: number; rope_scaling?: RopeScaling } {
  const { raw } = fields
  const rope = (raw.rope_parameters ?? raw.rope_scaling ?? {}) as Record<string, unknown>
  const rope_theta = fields.positive('rope_theta', raw.rope_theta ?? rope.rope_theta ?? 10_000)
  const part = rope.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1
  if (part !== 1) fields.refuse(`partial_rotary_factor ${part} is not supported, only 1`)

  const type = String(rope.rope_type ?? rope.type ?? 'default')
  const number = (key: string) => fields.positive(`${key} of the scaled rope`, rope[key])
  switch (type) {
    case 'default':
      return { rope_theta }
    case 'linear':
      return { rope_theta, rope_scaling: { rope_type: 'linear', factor: number('factor') } }
    case 'llama3':
      return {
        rope_theta,
        rope_scaling: {
          rope_type: 'llama3',
          factor: number('factor'),
          low_freq_factor: number('low_freq_factor'),
          high_freq_factor: number('high_freq_factor'),
          original_max_position_embeddings: number('original_max_position_embeddings'),
        },
      }
    case 'factors':
      return {
        rope_theta,
        rope_scaling: { rope_type: 'factors', factors: factorsOf(fields, rope) },
      }
    default:
      return fields.refuse(`rope scaling of type ${type} is not supported`)
  }
}

function factorsOf(fields: Fields, { factors }: Record<string, unknown>): readonly number[] {
  if (!Array.isArray(factors)) return fields.refuse('the factors of the scaled rope are no list')
  return factors.map((factor) => fields.positive('a factor of the scaled rope', factor))
}
