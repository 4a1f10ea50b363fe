// GPT-2: learned positions, pre-norm with LayerNorm, one projection for q, k and v, GELU.

import * as op from '../graph/ops/ops.ts'
import type { Architecture } from './architecture.ts'
import { layerNorm, linear, rowsOf } from './layers.ts'

export const gpt2: Architecture = {
  names: ['gpt2'],

  hidden({ ids, positions, wanted }, weights, config, attend) {
    const D = config.hidden_size
    const model = weights.at('transformer')
    let x = op.add(
      op.gather(model.at('wte').get('weight'), ids),
      op.gather(model.at('wpe').get('weight'), positions),
    ) // [N, D]
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const w = model.at(`h.${i}`)
      const some = rowsOf(i === config.num_hidden_layers - 1 ? wanted : undefined)
      x = w.kept.block([x], (x) => {
        const h = layerNorm(x, w.at('ln_1'), config)
        const [q, k, v] = op.split(linear(h, w.at('attn.c_attn')), 1, [D, D, D])
        const mixed = w.kept.between([q!, k!, v!], (q, k, v) => attend(q, k, v, i))
        const y = op.add(some(x), linear(some(mixed), w.at('attn.c_proj')))
        const m = layerNorm(y, w.at('ln_2'), config)
        const a = w.kept.between([linear(m, w.at('mlp.c_fc'))], op.geluNew)
        return op.add(y, linear(a, w.at('mlp.c_proj')))
      })
    }
    return layerNorm(x, model.at('ln_f'), config)
  },

  head: (weights, config) => weights.at(config.tie_word_embeddings ? 'transformer.wte' : 'lm_head'),
}
