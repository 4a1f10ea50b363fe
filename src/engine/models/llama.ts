// Llama 2 and 3, TinyLlama, SmolLM2: pre-norm, RoPE, grouped-query attention, SwiGLU (arXiv 2302.13971).

import * as op from '../graph/ops/ops.ts'
import type { Architecture } from './architecture.ts'
import { attention, mlp, rmsNorm, rowsOf } from './layers.ts'

export const llama: Architecture = {
  names: ['llama'],

  hidden({ ids, wanted }, weights, config, attend) {
    let x = op.gather(weights.at('model.embed_tokens').get('weight'), ids) // [N, D]
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const w = weights.at(`model.layers.${i}`)
      const some = rowsOf(i === config.num_hidden_layers - 1 ? wanted : undefined)
      x = w.kept.block([x], (x) => {
        const h = rmsNorm(x, w.at('input_layernorm'), config)
        const y = op.add(some(x), attention(h, w.at('self_attn'), attend, i, some))
        const m = rmsNorm(y, w.at('post_attention_layernorm'), config)
        return op.add(y, mlp(m, w.at('mlp')))
      })
    }
    return rmsNorm(x, weights.at('model.norm'), config)
  },

  head: (weights, config) =>
    weights.at(config.tie_word_embeddings ? 'model.embed_tokens' : 'lm_head'),
}
