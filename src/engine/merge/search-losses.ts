// The loss of a model on rows, for searches: opened once where candidates are adapters, for each where they are models.

import { encodeFile } from '../datasets/encode.ts'
import {
  adapterFromFlat,
  flatFromAdapter,
  type LoraConfig,
  loraLayout,
} from '../models/adapters.ts'
import type { HandlerContext } from '../runtime/thread.ts'
import { openTokenizer } from '../tokenizer/tokenizer.ts'
import { supervised } from '../train/methods/supervised.ts'
import { createMoments } from '../train/optimizer.ts'
import { chooseShape } from '../train/row-shape.ts'
import { createTrainer } from '../train/trainer.ts'
import type { LoraPair } from '../weights/adapter.ts'
import { openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'

/** Where a search reads and computes. */
export interface SearchPlace {
  /** A Hugging Face folder or a .gguf file. */
  readonly model: string
  /** Training rows. */
  readonly rows: string
  /** Folder for converted weights. */
  readonly cache: string
  readonly threads: number
}

const BATCH = 16
const MOST_TOKENS = 1024

/** A decoder with an adapter of this shape as its input, and rows to answer. Dispose it. */
export async function openLosses(
  { model, rows, cache, threads }: SearchPlace,
  config: LoraConfig,
  turn: HandlerContext['turn'],
) {
  const checkpoint = await openCheckpoint(model)
  if (checkpoint.config.encoder) throw new Error('A search needs a decoder.')
  const weights = await mapWeights(checkpoint, cache)
  const tokenizer = await openTokenizer(checkpoint)
  const { chat_template } = checkpoint
  const max_sequence_length = Math.min(MOST_TOKENS, checkpoint.config.max_position_embeddings)
  const encoder = supervised.encoder({ tokenizer, chat_template, max_sequence_length }, {})
  const examples = await encodeFile(rows, encoder)
  if (examples.length === 0) throw new Error('The validation file has no rows.')
  const layout = loraLayout(weights, config)
  const lengths = examples.map(({ tokens }) => tokens.length)
  const adapter = new Float32Array(layout.parameters)
  const trainer = await createTrainer(
    { step: 0, adapter, moments: createMoments(0) },
    {
      objective: supervised.objective({ weights, layout, shape: chooseShape(lengths, BATCH) }),
      threads,
      weightDecay: 0,
      maxGradNorm: 1,
      turn,
    },
  )
  const empty = adapterFromFlat(layout, adapter, '')
  return {
    /** The mean loss a token with this adapter; what it has not stays zero. */
    of: async (pairs: ReadonlyMap<string, LoraPair>) => {
      adapter.set(flatFromAdapter(layout, { ...empty, pairs: new Map([...empty.pairs, ...pairs]) }))
      const measure = await trainer.evaluate(examples)
      return measure?.loss ?? Number.NaN
    },
    [Symbol.asyncDispose]: () => trainer[Symbol.asyncDispose](),
  }
}
