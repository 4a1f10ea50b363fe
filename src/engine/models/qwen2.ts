// Qwen 2 and 2.5 (arXiv 2412.15115): computes as llama does; its biases are in the checkpoint.

import type { Architecture } from './architecture.ts'
import { llama } from './llama.ts'

export const qwen2: Architecture = { ...llama, names: ['qwen2'] }
