// The table of families: one line each.

import type { ModelConfig } from '../weights/checkpoint.ts'
import type { Architecture } from './architecture.ts'
import { gpt2 } from './gpt2.ts'
import { llama } from './llama.ts'
import { mistral } from './mistral.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'

const architectures: readonly Architecture[] = [llama, mistral, qwen2, qwen3, gpt2]

/** The family of a checkpoint; throws for one that is not in the table. */
export function architectureOf(config: ModelConfig): Architecture {
  const found = architectures.find((a) => a.names.includes(config.model_type))
  if (found) return found
  const known = architectures.flatMap((a) => a.names).join(', ')
  throw new Error(`model_type ${config.model_type} is not supported; supported: ${known}`)
}
