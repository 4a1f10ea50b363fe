// The decoding graph: new tokens and a KV cache in, logits of chosen places and the new tokens' keys and values out.

import { emitOne, input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { skipNorms } from '../graph/skip-norms.ts'
import { type CachedRows, cachedAttention } from '../models/cached-attention.ts'
import { architectureOf } from '../models/index.ts'
import { productsIn, promptProductsIn, type ServedWeights } from '../models/serving.ts'
import { stepAttention } from '../models/step-attention.ts'
import { weightsOf } from '../models/weights.ts'
import { chunkedLoras } from './lora-chunks.ts'
import { type StackedBlock, singleLora, stackedLoras } from './lora-stack.ts'

/**
 * What a session adds to the base: nothing; adapters, of which some may be DoRA's; or in a step, where each row is one token
 * of a sequence of its own, one adapter for all rows, or one or none for each.
 */
export type Adapting = 'none' | 'lora' | 'dora' | 'step' | 'step-one' | 'step-many'

/** Whether each sequence has one new token in a run, and no more. */
export const isStep = (adapting: Adapting): boolean => adapting.startsWith('step')

export interface DecodeGraph {
  readonly onnx: Uint8Array
  /** What the adapters lie on; empty without them. */
  readonly blocks: readonly StackedBlock[]
}

/**
 * Inputs: `tokens` and `positions` [B, S] int64; `index` [R] int64, places in 0 … B·S−1 whose logits are wanted;
 * `capacity` [1] int64, C; `mask` and `mask.<window>` [B, 1, 1, S, C + S]; `past.<i>.key` [B, G, 1, K, C] and
 * `.value` [B, G, 1, C, K]; what the adapters' stack feeds. Outputs: `logits` [R, V], `fresh` [L·2·B, S, G·K], of each layer the new keys,
 * then the values.
 * In a step S is 1, and past, masks, keys and values have the shapes of `stepAttention`. `prompts`: it multiplies as prompts do.
 */
export function buildDecode(
  served: ServedWeights,
  adapting: Adapting,
  prompts = false,
): DecodeGraph {
  const { config } = served.mapped
  const { num_key_value_heads: G, head_dim: K } = config
  const architecture = architectureOf(config)
  const tokens = input('tokens', 'int64', ['B', 'S'])
  const index = input('index', 'int64', ['R'])
  const step = isStep(adapting)
  const rows = step ? ['B·G'] : ['B', G]
  const cached: CachedRows = {
    positions: input('positions', 'int64', ['B', 'S']),
    capacity: input('capacity', 'int64', [1]),
    past: (layer) => ({
      key: input(`past.${layer}.key`, 'float32', [...rows, 1, K, 'C']),
      value: input(`past.${layer}.value`, 'float32', [...rows, 1, 'C', K]),
    }),
    mask: once((window: number | undefined) =>
      input(maskName(window), 'float32', [...(step ? ['B·G', 1, 1] : ['B', 1, 1, 'S']), 'C+S']),
    ),
  }
  const stack = lorasOf(adapting)
  const products = prompts ? promptProductsIn(served, adapting !== 'none') : productsIn(served)
  const adapt = stack?.adapt ?? ((_, { y }) => y)
  const model = weightsOf(served.mapped, { products, adapt })
  const { attend, fresh } = (step ? stepAttention : cachedAttention)(config, cached)
  const flat = {
    ids: op.reshape(tokens, ['N']),
    positions: op.reshape(cached.positions, ['N']),
  }
  const hidden = op.gather(architecture.hidden(flat, model, config, attend), index)
  const [head] = products(hidden, [architecture.head(model, config)])

  // One output: each costs microseconds to hand out.
  const parts = fresh.flatMap(({ key, value }) => [key, value])
  const type = { dtype: 'float32' as const, dims: ['L·B', ...parts[0]!.dims.slice(1)] }
  const together = emitOne('Concat', parts, type, { attributes: { axis: 0 } })
  const outputs = { logits: head!.y, fresh: together }
  return { onnx: encodeOnnx(outputs, [], skipNorms), blocks: stack?.blocks ?? [] }
}

function lorasOf(adapting: Adapting) {
  switch (adapting) {
    case 'none':
    case 'step':
      return undefined
    case 'step-one':
      return singleLora()
    case 'step-many':
      return chunkedLoras()
    case 'lora':
    case 'dora':
      return stackedLoras(adapting === 'dora')
    default:
      return adapting satisfies never
  }
}

/** Layers of one window share a mask. */
export const maskName = (window: number | undefined): string =>
  window === undefined ? 'mask' : `mask.${window}`

function once<K, V>(make: (key: K) => V): (key: K) => V {
  const made = new Map<K, V>()
  return (key) => {
    const known = made.get(key) ?? make(key)
    made.set(key, known)
    return known
  }
}
