// What tuning costs an encoder elsewhere: which of some general texts it finds near which, before and after.

import { textBatches } from '../datasets/text-batches.ts'
import { type TextExample, textExample } from '../datasets/text-example.ts'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import { encoderPass, feedsFor } from '../models/encoder-pass.ts'
import { meanPooled } from '../models/pooling.ts'
import { type TrainedLayout, trainedFeeds, trainedLayout } from '../models/trained.ts'
import { capabilitiesOf } from '../runtime/device.ts'
import { createSession, type Feeds, type Session } from '../runtime/session.ts'
import type { TakeTurn } from '../runtime/thread.ts'
import { float32 } from '../tensor.ts'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import type { Probe } from './probe.ts'
import { PROBE_TEXTS } from './probe-texts.ts'
import type { Plan } from './request.ts'

/** Longer texts are cut. */
const LENGTH = 64
/** The softmax's temperature as a share of the spread of the base's cosines. */
const TEMPERATURE = 0.5

/** The trained vector as an encoder. */
export interface TunedEncoder {
  readonly layout: TrainedLayout
  /** Token ids as its graph wants them. */
  readonly inTable: (tokens: Int32Array) => Int32Array
}

export interface EncoderProbeOptions {
  readonly weights: MappedWeights
  readonly tuned: TunedEncoder
  readonly texts: readonly TextExample[]
  readonly plan: Pick<Plan, 'threads' | 'device'>
  readonly turn: TakeTurn
}

/** The general texts as an encoder reads them. */
export const probeExamples = (tokenizer: Tokenizer, { config }: MappedWeights): TextExample[] =>
  PROBE_TEXTS.map((text, i) => {
    const most = Math.min(LENGTH, config.max_position_embeddings)
    return textExample(i + 1, [tokenizer.encodeTexts(text, undefined, most)])
  })

/**
 * For each text the softmax over its cosines to all others says which it is near: `base_loss` is the mean entropy of
 * what the base says, `loss` the cross-entropy of what the tuned encoder says with it, `divergence` their difference.
 * Turning the space as a whole changes nothing.
 */
export function createEncoderProbe(options: EncoderProbeOptions): Probe {
  const { weights, tuned, texts, plan, turn } = options
  const { device = 'cpu', threads } = plan
  const shape = { rows: 2, length: Math.min(2 * LENGTH, weights.config.max_position_embeddings) }
  const N = shape.rows * shape.length
  const D = weights.config.hidden_size

  const open = (layout: TrainedLayout): Promise<Session> => {
    const { hidden } = encoderPass(weights, layout, shape)
    const vectors = meanPooled(hidden, input('shares', 'float32', ['S', N]))
    return createSession(encodeOnnx({ vectors }, capabilitiesOf(device).without), {
      device,
      threads,
    })
  }
  const cosines = async (
    session: Session,
    inTable: TunedEncoder['inTable'],
    trained: Feeds,
  ): Promise<Float64Array> => {
    const vectors = new Float32Array(texts.length * D)
    const read = texts.map(({ tokens, types }) => ({ tokens: inTable(tokens), types }))
    for (const batch of textBatches(read, shape)) {
      const S = batch.texts.length
      const shares = new Float32Array(S * N)
      for (const [s, { index, at }] of batch.texts.entries()) {
        const { length } = read[index]!.tokens
        shares.fill(1 / length, s * N + at, s * N + at + length)
      }
      using _turn = await turn()
      const outputs = await session.run({
        ...feedsFor(weights, batch.feeds),
        shares: float32([S, N], shares),
        ...trained,
      })
      const found = outputs.vectors!.data as Float32Array
      for (const [s, { index }] of batch.texts.entries())
        vectors.set(found.subarray(s * D, (s + 1) * D), index * D)
    }
    return cosinesOf(vectors, texts.length)
  }
  let base: Float64Array | undefined
  let session: Session | undefined

  return {
    async measure(flat) {
      if (!base) {
        const none = trainedLayout(undefined, [])
        await using before = await open(none)
        base = await cosines(before, (ids) => ids, trainedFeeds(none, new Float32Array(0)))
      }
      session ??= await open(tuned.layout)
      const after = await cosines(session, tuned.inTable, trainedFeeds(tuned.layout, flat))
      return neighboursMoved(base, after, texts.length)
    },
    async [Symbol.asyncDispose]() {
      await session?.[Symbol.asyncDispose]()
    },
  }
}

/** Of vectors of norm 1 end to end: [n, n]. */
function cosinesOf(vectors: Float32Array, n: number): Float64Array {
  const D = vectors.length / n
  const found = new Float64Array(n * n)
  for (let a = 0; a < n; a++)
    for (let b = 0; b < n; b++)
      for (let k = 0; k < D; k++) found[a * n + b]! += vectors[a * D + k]! * vectors[b * D + k]!
  return found
}

/** In nats a text. Cosines [n, n] of the base and of the tuned encoder, at the temperature that suits the base. */
export function neighboursMoved(before: Float64Array, after: Float64Array, n: number) {
  const others = [...before].filter((_, i) => Math.floor(i / n) !== i % n)
  const mean = others.reduce((a, b) => a + b, 0) / others.length
  const spread = Math.sqrt(others.reduce((sum, x) => sum + (x - mean) ** 2, 0) / others.length)
  const temperature = TEMPERATURE * Math.max(spread, 1e-6)
  const logSoftmax = (all: Float64Array, a: number) => {
    const row = Array.from(all.subarray(a * n, (a + 1) * n), (x) => x / temperature)
    row[a] = Number.NEGATIVE_INFINITY
    const most = Math.max(...row)
    const sum = most + Math.log(row.reduce((total, x) => total + Math.exp(x - most), 0))
    return row.map((x) => x - sum)
  }
  let [loss, base_loss] = [0, 0]
  for (let a = 0; a < n; a++) {
    const [was, is] = [logSoftmax(before, a), logSoftmax(after, a)]
    for (let b = 0; b < n; b++) {
      if (a === b) continue
      const p = Math.exp(was[b]!)
      base_loss -= (p * was[b]!) / n
      loss -= (p * is[b]!) / n
    }
  }
  return { loss, base_loss, divergence: loss - base_loss }
}
