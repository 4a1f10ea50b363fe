// The table of encoder families: one line each.

import type { ModelConfig } from '../weights/model-config.ts'
import { bert } from './bert.ts'
import { distilbert } from './distilbert.ts'
import type { EncoderArchitecture } from './encoder.ts'
import { roberta } from './roberta.ts'

const encoders: readonly EncoderArchitecture[] = [bert, distilbert, roberta]

/** The family of an encoder's checkpoint; undefined for any other model. */
export const findEncoder = ({ model_type }: ModelConfig): EncoderArchitecture | undefined =>
  encoders.find(({ names }) => names.includes(model_type))

/** The family of an encoder's checkpoint. */
export function encoderArchitectureOf(config: ModelConfig): EncoderArchitecture {
  const found = findEncoder(config)
  if (found) return found
  const known = encoders.flatMap(({ names }) => names).join(', ')
  throw new Error(`model_type ${config.model_type} is no encoder; encoders are: ${known}`)
}
