// One encoder with what was tuned of it, ready to run: its sessions by row length, made when they are first needed.

import { invalidRequest } from '../../errors.ts'
import { input } from '../graph/graph.ts'
import { encodeOnnx } from '../graph/onnx.ts'
import * as op from '../graph/ops/ops.ts'
import { flatFromAdapter, loraConfigOf, loraLayout } from '../models/adapters.ts'
import { classifierHead, encoderUseOf } from '../models/encoder-heads.ts'
import { encoderPass } from '../models/encoder-pass.ts'
import { meanPooled, pooled } from '../models/pooling.ts'
import { cutTensor, type TrainedLayout, trainedFeeds, trainedLayout } from '../models/trained.ts'
import { createSession, type Feeds, type Session } from '../runtime/session.ts'
import { openTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts'
import { type MappedWeights, openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import { MEAN_POOLING, type Pooling, readPooling } from '../weights/pooling.ts'
import { type EncoderUse, readTunedEncoder, type TunedEncoder } from '../weights/tuned-encoder.ts'
import type { Target } from './request.ts'

export interface ResidentEncoder extends AsyncDisposable {
  readonly tokenizer: Tokenizer
  readonly weights: MappedWeights
  readonly use: EncoderUse
  /** How vectors are made of texts. */
  readonly pooling: Pooling
  /** What the sessions are fed besides texts. */
  readonly feeds: Feeds
  /** The row length to pack so many tokens into. */
  rowLength(tokens: number): number
  /** Reads the feeds of `textBatches` for one row of this length, and `index` or `shares`; gives `answers`. */
  session(length: number): Promise<Session>
}

/** Rows to choose from: a short question does not pay for a long one. */
const ROW_LENGTHS = [32, 128, 512]

/** Opens the files of a target; throws what is wrong with them. */
export async function loadEncoder(target: Target, threads: number): Promise<ResidentEncoder> {
  const checkpoint = await openCheckpoint(target.model)
  if (!checkpoint.config.encoder)
    throw invalidRequest('This model goes on with texts; it gives neither embeddings nor labels.', {
      param: 'model',
      code: 'unsupported_model',
    })
  const [base, tokenizer] = await Promise.all([
    mapWeights(checkpoint, target.cache),
    openTokenizer(checkpoint),
  ])
  const tuned =
    target.adapter === undefined ? undefined : await readTunedEncoder(target.adapter, base)
  const weights = tuned?.type === 'model' ? tuned.weights : base
  const { layout, flat } = adapted(base, tuned)
  const use = tuned?.use ?? encoderUseOf(base.config, (name) => base.tensors.has(name))
  const isOwn = use.method === 'embedding' && !tuned && checkpoint.format === 'huggingface'
  const pooling = isOwn ? await readPooling(checkpoint.path) : MEAN_POOLING

  const longest = weights.config.max_position_embeddings
  const lengths = [...ROW_LENGTHS.filter((length) => length < longest), longest]
  const sessions = new Map<number, Promise<Session>>()
  return {
    tokenizer,
    weights,
    use,
    pooling,
    feeds: trainedFeeds(layout, flat),
    rowLength: (tokens) => lengths.find((length) => length >= tokens) ?? longest,
    session(length) {
      const known = sessions.get(length)
      if (known) return known
      const opening = createSession(buildAnswers(weights, { layout, use, pooling, length }), {
        threads,
      })
      sessions.set(length, opening)
      opening.catch(() => sessions.delete(length))
      return opening
    },
    async [Symbol.asyncDispose]() {
      for (const session of sessions.values()) await (await session)[Symbol.asyncDispose]()
    },
  }
}

/** Whether a target is one of ours to run. */
export const isEncoder = async (target: Target): Promise<boolean> =>
  (await openCheckpoint(target.model)).config.encoder !== undefined

/** An adapter and its head as one vector; nothing where the model is whole. */
function adapted(base: MappedWeights, tuned: TunedEncoder | undefined) {
  if (tuned?.type !== 'adapter')
    return { layout: trainedLayout(undefined, []), flat: new Float32Array(0) }
  const { adapter } = tuned
  const lora = loraLayout(withAdapters(base, adapter.pairs), loraConfigOf(adapter))
  const saved = [...(adapter.saved ?? [])]
  const layout = trainedLayout(
    lora,
    saved.map(([name, { dims }]) => ({ name, dims })),
  )
  const flat = new Float32Array(layout.parameters)
  flat.set(flatFromAdapter(lora, adapter))
  for (const [i, [, { data }]] of saved.entries()) cutTensor(layout.tensors[i]!, flat).set(data)
  return { layout, flat }
}

/** Only modules with an adapter: a target may name others too, such as a pooler that is not used. */
const withAdapters = (base: MappedWeights, pairs: ReadonlyMap<string, unknown>): MappedWeights => ({
  ...base,
  tensors: new Map([...base.tensors].filter(([name]) => pairs.has(name.replace(/\.weight$/, '')))),
})

function buildAnswers(
  weights: MappedWeights,
  {
    layout,
    use,
    pooling,
    length,
  }: { layout: TrainedLayout; use: EncoderUse; pooling: Pooling; length: number },
): Uint8Array {
  const { hidden, weights: model } = encoderPass(weights, layout, { rows: 1, length })
  if (use.method === 'embedding') {
    const shares = input('shares', 'float32', ['S', length])
    return encodeOnnx({ answers: (pooling.normalized ? meanPooled : pooled)(hidden, shares) })
  }
  const { logits } = classifierHead(weights.config, use.task)
  return encodeOnnx({ answers: logits(op.gather(hidden, input('index', 'int64', ['S'])), model) })
}
