// Mistral (arXiv 2310.06825): computes as llama does; its windows are in the config, and attention keeps to them.

import type { Architecture } from './architecture.ts'
import { llama } from './llama.ts'

export const mistral: Architecture = { ...llama, names: ['mistral'] }
