// Whether a device computes what the processor computes: one training step of a two-layer model, on both.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Example } from '../datasets/example.ts'
import { type LoraLayout, loraLayout } from '../models/adapters.ts'
import { writeFreshLlama } from '../models/fresh-llama.ts'
import { normal } from '../random.ts'
import type { DeviceKind } from '../runtime/device.ts'
import { trainBpe } from '../tokenizer/train-bpe.ts'
import { type MappedWeights, openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import { supervised } from './methods/supervised.ts'
import { createMoments } from './optimizer.ts'
import { createTrainer } from './trainer.ts'

const LORA = {
  rank: 4,
  alpha: 8,
  target_modules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
}
const VOCABULARY = 258
const SHAPE = { rows: 2, length: 32 }

/** Of loss and gradient the largest relative difference to the processor. Throws where the device cannot be used. */
export async function selfTest(device: DeviceKind): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-self-test-'))
  try {
    const [bos_token, eos_token] = ['<s>', '</s>']
    const model = join(folder, 'model')
    await writeFreshLlama(model, {
      size: {
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
      },
      tokenizer: trainBpe([], { vocab_size: VOCABULARY, special_tokens: [bos_token, eos_token] }),
      bos_token,
      eos_token,
      chat_template: '',
      seed: 1,
    })
    const weights = await mapWeights(await openCheckpoint(model), folder)
    const layout = loraLayout(weights, LORA)
    const want = await step('cpu', weights, layout)
    const got = await step(device, weights, layout)
    return Math.max(
      relativeError([got.loss], [want.loss]),
      relativeError(got.gradient, want.gradient),
    )
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function step(device: DeviceKind, weights: MappedWeights, layout: LoraLayout) {
  const objective = supervised.objective({ weights, layout, shape: SHAPE })
  const adapter = Float32Array.from({ length: layout.parameters }, (_, i) => 0.1 * normal(2, 0, i))
  await using trainer = await createTrainer(
    { step: 0, adapter, moments: createMoments(layout.parameters) },
    {
      objective,
      threads: 1,
      device,
      weightDecay: 0,
      maxGradNorm: 1,
      turn: async () => ({ [Symbol.dispose]() {} }),
    },
  )
  return await trainer.gradient(EXAMPLES)
}

/** Texts of several lengths, some of whose tokens are learned; packed into more than one row. */
const EXAMPLES: readonly Example[] = [20, 11, 30, 7].map((length, line) => ({
  line,
  tokens: Int32Array.from({ length }, (_, i) => (line * 83 + i * 37) % VOCABULARY),
  weights: Float32Array.from({ length }, (_, i) => Number(i > 3)),
}))

/** max|a − b| / max|b| */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, largest] = [0, 0]
  for (let i = 0; i < b.length; i++) {
    difference = Math.max(difference, Math.abs(a[i]! - b[i]!))
    largest = Math.max(largest, Math.abs(b[i]!))
    if (Number.isNaN(a[i])) return Number.NaN
  }
  return difference / largest
}
