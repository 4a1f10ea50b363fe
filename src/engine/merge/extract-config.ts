// The extraction of an adapter as it is asked for: what a tuned model has learned beside its base, at a low rank.

import { rank } from './adapter-config.ts'
import { type ModelName, modelName } from './config.ts'
import { bad, type Json, list, number, only, record, text } from './fields.ts'

export interface ExtractionConfig {
  readonly kind: 'extraction'
  readonly model: ModelName
  readonly base_model: ModelName
  readonly max_rank: number
  /** Singular values up to this are left out: each module gets the rank that it needs. */
  readonly sv_epsilon: number
  /** By their last names, `q_proj`; absent: every matrix of the layers. */
  readonly target_modules?: readonly string[]
  /** Another highest rank for the modules whose names end so, as PEFT's `rank_pattern`. */
  readonly rank_pattern: Readonly<Record<string, number>>
  readonly name?: string
}

const KEYS = [
  'name',
  'extract_adapter',
  'base_model',
  'max_rank',
  'sv_epsilon',
  'target_modules',
  'rank_pattern',
]

/** Checks what was sent. Throws an ApiError that names the field. */
export function parseExtraction(root: Json): ExtractionConfig {
  only(root, KEYS, '')
  const sv_epsilon = number(root.sv_epsilon ?? 0, 'sv_epsilon')
  if (sv_epsilon < 0) throw bad('sv_epsilon', `Expected 0 or more, found ${sv_epsilon}`)
  return {
    kind: 'extraction',
    model: modelName(root.extract_adapter, 'extract_adapter'),
    base_model: modelName(root.base_model, 'base_model'),
    max_rank: rank(root.max_rank ?? 16, 'max_rank'),
    sv_epsilon,
    ...(root.target_modules != null && {
      target_modules: list(root.target_modules, 'target_modules').map((name, i) =>
        text(name, `target_modules[${i}]`),
      ),
    }),
    rank_pattern: Object.fromEntries(
      Object.entries(record(root.rank_pattern ?? {}, 'rank_pattern')).map(([name, value]) => [
        name,
        rank(value, `rank_pattern.${name}`),
      ]),
    ),
    ...(typeof root.name === 'string' && { name: root.name }),
  }
}
