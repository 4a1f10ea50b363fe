// Qwen 3, dense (arXiv 2505.09388): a llama that norms each query and key head before it turns them.

import type { Value } from '../graph/graph.ts'
import * as op from '../graph/ops/ops.ts'
import type { Architecture } from './architecture.ts'
import { type Attend, rmsNorm } from './layers.ts'
import { llama } from './llama.ts'

export const qwen3: Architecture = {
  names: ['qwen3'],

  hidden(tokens, weights, config, attend) {
    const K = config.head_dim
    const normed: Attend = (q, k, v, layer) => {
      const w = weights.at(`model.layers.${layer}.self_attn`)
      const headNorm = (x: Value, norm: string): Value => {
        const [n, width] = x.dims // [N, H·K]
        const heads = Number(width) / K
        const rows = typeof n === 'number' ? n * heads : `${n}·${heads}`
        return op.reshape(rmsNorm(op.reshape(x, [rows, K]), w.at(norm), config), x.dims)
      }
      return attend(headNorm(q, 'q_norm'), headNorm(k, 'k_norm'), v, layer)
    }
    return llama.hidden(tokens, weights, config, normed)
  },

  head: llama.head,
}
