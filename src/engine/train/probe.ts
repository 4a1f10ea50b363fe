// What tuning costs elsewhere: the loss on general texts before and after, and how far predictions have moved on them.

import { encodeRow } from '../datasets/encode.ts'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { architectureOf } from '../models/index.ts'
import { type Weights, weightsOf } from '../models/weights.ts'
import { capabilitiesOf } from '../runtime/device.ts'
import { createSession, type Session } from '../runtime/session.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { Feeds } from './methods/method.ts'
import { microBatches, supervisedTokens } from './micro-batch.ts'
import { PROBE_TEXTS } from './probe-texts.ts'
import type { Plan } from './request.ts'
import { hiddenRows } from './step.ts'

/** Longer texts are cut: two predictions over the whole vocabulary are held for each token. */
const LENGTH = 64

/** The trained vector as a model beside its base in one graph. */
export interface Tuned {
  /** Makes the graph's inputs, and the model that they make of the base. */
  weights(base: Weights): Weights
  /** What they are fed, over the vector's own memory. */
  feeds(flat: Float32Array): Feeds
}

/** Means over tokens, in nats. */
export interface Probed {
  /** Cross-entropy of the tuned model, and of its base without any adapter. */
  readonly loss: number
  readonly base_loss: number
  /** KL(base ‖ tuned). */
  readonly divergence: number
}

export interface ProbeOptions {
  readonly weights: MappedWeights
  readonly tuned: Tuned
  readonly tokenizer: Tokenizer
  readonly plan: Pick<Plan, 'threads' | 'device'>
  readonly turn: TakeTurn
}

export interface Probe extends AsyncDisposable {
  /** Measures the model that this vector makes of the base. */
  measure(flat: Float32Array): Promise<Probed>
}

/** Opens nothing before it is first asked. */
export function createProbe({ weights, tuned, tokenizer, plan, turn }: ProbeOptions): Probe {
  const { device = 'cpu', threads } = plan
  const length = Math.min(LENGTH, weights.config.max_position_embeddings)
  const shape = { rows: 1, length }
  const examples = PROBE_TEXTS.map((text, i) =>
    encodeRow(i + 1, { text }, 'text', {
      tokenizer,
      chat_template: undefined,
      max_sequence_length: length,
    }),
  )
  const tokens = supervisedTokens(examples)
  let session: Session | undefined

  return {
    async measure(flat) {
      session ??= await createSession(
        encodeOnnx(buildProbe(weights, tuned, shape), capabilitiesOf(device).without),
        { device, threads },
      )
      const sums = { loss: 0, base_loss: 0, divergence: 0 }
      // Each token weighs 1: the outputs are sums, divided below.
      for (const { feeds } of microBatches(examples, shape, 1)) {
        using _turn = await turn()
        const outputs = await session.run({ ...feeds, ...tuned.feeds(flat) })
        for (const name of Object.keys(sums) as (keyof typeof sums)[])
          sums[name] += Number(outputs[name]!.data[0])
      }
      return {
        loss: sums.loss / tokens,
        base_loss: sums.base_loss / tokens,
        divergence: sums.divergence / tokens,
      }
    },
    async [Symbol.asyncDispose]() {
      await session?.[Symbol.asyncDispose]()
    },
  }
}

/** Inputs as those of the supervised step; outputs `loss`, `base_loss` and `divergence`, sums over supervised tokens. */
function buildProbe(mapped: MappedWeights, tuned: Tuned, shape: { rows: number; length: number }) {
  const { config } = mapped
  const { rows: B, length: T } = shape
  const tokens = input('tokens', 'int64', [B, T])
  const positions = input('positions', 'int64', [B, T])
  const segments = input('segments', 'int64', [B, T])
  const index = input('index', 'int64', ['S'])
  const targets = input('targets', 'int64', ['S'])
  const weights = input('weights', 'float32', ['S'])
  const logitsOf = (model: Weights) => {
    const hidden = hiddenRows(mapped, model, { tokens, positions, segments })
    return op.linear(
      op.pick(hidden, index),
      architectureOf(config).head(model, config).get('weight'),
    )
  }
  const base = weightsOf(mapped)
  const before = logitsOf(base)
  const after = logitsOf(tuned.weights(base))
  return {
    loss: op.crossEntropy(after, targets, weights),
    base_loss: op.crossEntropy(before, targets, weights),
    divergence: op.divergence(before, after),
  }
}
