// A config.json in Hugging Face's words, and which tensors such a model must have, as its family says.
// Refuses what would compute wrongly instead of reading over it.

import type { Family, ModelConfig, Shapes } from './families/family.ts'
import { readFields } from './families/fields.ts'
import { findFamily, modelTypes } from './families/index.ts'

export type { ModelConfig } from './families/family.ts'

/** What a config claims is believed up to here: names and shapes of every layer are held in memory. */
const MOST_LAYERS = 10_000

/** Checks a parsed config.json; `where` opens every message. */
export function parseModelConfig(json: unknown, where: string): ModelConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new Error(`${where}: not a JSON object`)
  const fields = readFields(json as Record<string, unknown>, where)
  const { model_type, quantization_config } = fields.raw
  const family = findFamily(model_type)
  if (!family)
    return fields.refuse(
      `model_type ${JSON.stringify(model_type)} is not supported, only ${modelTypes.join(', ')}`,
    )
  if (quantization_config)
    fields.refuse('quantised safetensors are not supported; use the GGUF or the plain file')
  const layers = Number(fields.raw.num_hidden_layers ?? fields.raw.n_layer)
  if (layers > MOST_LAYERS) fields.refuse(`${layers} layers are more than any model has`)
  return family.config(fields)
}

/** The family that a checked config is of. */
export function familyOf({ model_type }: ModelConfig): Family {
  const family = findFamily(model_type)
  if (!family) throw new Error(`model_type ${model_type} is not supported`)
  return family
}

/** Name and shape of every tensor a model of this config computes with. */
export const requiredTensors = (config: ModelConfig): Shapes => familyOf(config).tensors(config)

/** Name and shape of tensors that such a model computes with where it has them. */
export const optionalTensors = (config: ModelConfig): Shapes =>
  familyOf(config).optional?.(config) ?? new Map()
