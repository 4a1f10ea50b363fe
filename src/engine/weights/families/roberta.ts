// RoBERTa on disk: a BERT whose positions begin after the padding token's, and no pooler.

import { bertConfig, bertTensors } from './bert.ts'
import { modernName } from './encoder.ts'
import type { Family, Shapes } from './family.ts'

export const roberta: Family = {
  names: ['roberta'],
  linear: ['query', 'key', 'value', 'dense'],

  config(fields) {
    const pad = fields.raw.pad_token_id ?? 1
    if (typeof pad !== 'number' || !Number.isSafeInteger(pad) || pad < 0)
      return fields.refuse(`pad_token_id is ${JSON.stringify(pad)}, expected an integer`)
    return bertConfig(fields, pad + 1)
  },

  tensors: (config) => bertTensors(config, 'roberta'),

  optional(config) {
    const D = config.hidden_size
    const { head } = config.encoder!
    const shapes: Shapes = new Map()
    if (!head) return shapes
    const labels = head.labels.length
    const name = head.task === 'tokens' ? 'classifier' : 'classifier.out_proj'
    if (head.task !== 'tokens') {
      shapes.set('classifier.dense.weight', [D, D])
      shapes.set('classifier.dense.bias', [D])
    }
    shapes.set(`${name}.weight`, [labels, D])
    shapes.set(`${name}.bias`, [labels])
    return shapes
  },

  stored(tensor) {
    const name = modernName(tensor.name)
    const bare = /^(embeddings|encoder)\./.test(name)
    return { ...tensor, name: bare ? `roberta.${name}` : name }
  },
}
