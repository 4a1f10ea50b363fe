// The table of families on disk: one line each.

import { bert } from './bert.ts'
import { distilbert } from './distilbert.ts'
import type { Family } from './family.ts'
import { gpt2 } from './gpt2.ts'
import { llama } from './llama.ts'
import { mistral } from './mistral.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { roberta } from './roberta.ts'

const families: readonly Family[] = [llama, mistral, qwen2, qwen3, gpt2, bert, distilbert, roberta]

/** The family of a model_type; undefined for one that is not in the table. */
export const findFamily = (model_type: unknown): Family | undefined =>
  families.find(({ names }) => names.some((name) => name === model_type))

/** Every model_type that can be opened. */
export const modelTypes: readonly string[] = families.flatMap(({ names }) => names)

/** Every general.architecture of a GGUF that can be opened. */
export const ggufArchitectures: readonly string[] = families.flatMap(({ names, gguf }) =>
  gguf ? names : [],
)
