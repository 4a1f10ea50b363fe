// Texts → vectors by an encoder that is installed: the mean of its last hidden states over a text's first tokens.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { textBatches } from '../datasets/text-batches.ts'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import { encoderPass, feedsFor } from '../models/encoder-pass.ts'
import { meanPooled } from '../models/pooling.ts'
import { trainedFeeds, trainedLayout } from '../models/trained.ts'
import { createSession } from '../runtime/session.ts'
import { float32 } from '../tensor.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'

export interface EmbeddingModel {
  /** As clients name it. */
  readonly id: string
  /** A folder in Hugging Face's layout. */
  readonly path: string
  /** Folder for converted weights. */
  readonly cache: string
}

/** Vectors of one length end to end, each of norm 1. */
export interface Embedded {
  readonly vectors: Float32Array
  readonly size: number
}

/**
 * Of the models of a machine the one that reads texts best: an encoder that was trained to compare texts
 * (sentence-transformers' modules.json lies beside it), else the first encoder there is. What cannot be opened is none.
 */
export async function chooseEncoder<M extends { readonly id: string; readonly path: string }>(
  models: readonly M[],
): Promise<M | undefined> {
  const folders = models.filter(({ path }) => !path.endsWith('.gguf'))
  const compares = ({ path }: M) => existsSync(join(path, 'modules.json'))
  const order = [...folders.filter(compares), ...folders.filter((model) => !compares(model))]
  for (const model of order) {
    const checkpoint = await openCheckpoint(model.path).catch(() => undefined)
    if (checkpoint?.config.encoder) return model
  }
  return undefined
}

/** What a text is about stands at its beginning; what is longer would take too long. */
const MOST_TOKENS = 64
const MOST_CHARACTERS = 512
const SHAPE = { rows: 4, length: 128 }
const N = SHAPE.rows * SHAPE.length

/** On one thread, beside what the devices do. `tell` is told how many texts have been read. */
export async function embedTexts(
  { path, cache }: EmbeddingModel,
  texts: readonly string[],
  tell: (texts: number) => void,
): Promise<Embedded> {
  const checkpoint = await openCheckpoint(path)
  const [weights, tokenizer] = await Promise.all([
    mapWeights(checkpoint, cache),
    openTokenizer(checkpoint),
  ])
  const read = texts.map((text) => {
    const { ids, types } = tokenizer.encodeTexts(
      text.slice(0, MOST_CHARACTERS),
      undefined,
      Math.min(MOST_TOKENS, weights.config.max_position_embeddings),
    )
    return { tokens: Int32Array.from(ids), types: Int32Array.from(types) }
  })
  const layout = trainedLayout(undefined, [])
  const { hidden } = encoderPass(weights, layout, SHAPE)
  const shares = input('shares', 'float32', ['S', N])
  const onnx = encodeOnnx({ vectors: meanPooled(hidden, shares) })
  await using session = await createSession(onnx, { threads: 1, prepack: true })
  const size = weights.config.hidden_size
  const vectors = new Float32Array(texts.length * size)
  let done = 0
  for (const batch of textBatches(read, SHAPE)) {
    const S = batch.texts.length
    const shares = new Float32Array(S * N)
    for (const [s, { index, at }] of batch.texts.entries()) {
      const { length } = read[index]!.tokens
      shares.fill(1 / length, s * N + at, s * N + at + length)
    }
    const outputs = await session.run({
      ...feedsFor(weights, batch.feeds),
      shares: float32([S, N], shares),
      ...trainedFeeds(layout, new Float32Array(0)),
    })
    const rows = outputs.vectors!.data as Float32Array
    for (const [s, { index }] of batch.texts.entries())
      vectors.set(rows.subarray(s * size, (s + 1) * size), index * size)
    done += S
    tell(done)
    await breathe()
  }
  return { vectors, size }
}
