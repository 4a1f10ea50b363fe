// The decoding graph: new tokens and a KV cache in, logits of chosen places and the cache out.

import { input, type Value } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { adapterInputs, type LoraLayout } from '../models/adapters.ts'
import { architectureOf } from '../models/index.ts'
import { cachedAttention } from '../models/layers.ts'
import { weightsOf } from '../models/weights.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'

/**
 * Inputs: `tokens` and `positions` [B, S] int64; `last_index` [B] int32, each sequence's tokens after this run less one; `total` int32,
 * the longest of them; `index` [R] int64, places in 0 … B·S−1 whose logits are wanted; `past.<i>.key` and `.value`
 * [B, G, C, K]; the parts of an adapter where there is a layout. Outputs: `logits` [R, V], `present.<i>.key` and `.value`.
 */
export function buildDecode(mapped: MappedWeights, layout: LoraLayout | undefined): Uint8Array {
  const { config } = mapped
  const architecture = architectureOf(config)
  const tokens = input('tokens', 'int64', ['B', 'S'])
  const positions = input('positions', 'int64', ['B', 'S'])
  const lastIndex = input('last_index', 'int32', ['B'])
  const total = input('total', 'int32', [])
  const index = input('index', 'int64', ['R'])
  const past = (name: 'key' | 'value') => (layer: number) =>
    input(`past.${layer}.${name}`, 'float32', [
      'B',
      config.num_key_value_heads,
      'C',
      config.head_dim,
    ])
  const pastKey = past('key')
  const pastValue = past('value')

  const model = weightsOf(mapped, layout && { loras: adapterInputs(layout) })
  const { attend, present } = cachedAttention(config, {
    tokens,
    positions,
    lastIndex,
    total,
    past: (layer) => ({ key: pastKey(layer), value: pastValue(layer) }),
  })
  const flat = { ids: op.reshape(tokens, ['N']), positions: op.reshape(positions, ['N']) }
  const hidden = architecture.hidden(flat, model, config, attend)
  const logits = op.linear(op.gather(hidden, index), architecture.head(model, config).get('weight'))

  const outputs: Record<string, Value> = { logits }
  for (const [i, { key, value }] of present.entries()) {
    outputs[`present.${i}.key`] = key
    outputs[`present.${i}.value`] = value
  }
  return encodeOnnx(outputs)
}
