// Texts in, vectors or labels out: keeps encoders resident and runs them over packed rows, each run in its own turn.

import { invalidRequest } from '../../errors.ts'
import { type EncodedWords, encodeWords } from '../datasets/encode-words.ts'
import { type TextBatch, textBatches } from '../datasets/text-batches.ts'
import { feedsFor } from '../models/encoder-pass.ts'
import { judgeTexts, type TextAnswer, type Verdict } from '../parity/parity.ts'
import type { Feeds } from '../runtime/session.ts'
import type { HandlerContext, TakeTurn } from '../runtime/thread.ts'
import { float32, int64 } from '../tensor.ts'
import type { EncodeRequest, Encodings } from './encode-request.ts'
import type { CertifyRequest, Target } from './request.ts'
import { loadEncoder, type ResidentEncoder } from './resident-encoder.ts'
import { embeddingOf, labelsOf, spansOf } from './told-labels.ts'

/** Encoders of idle targets beyond this many are forgotten, the longest unused first. */
const KEPT = 8

interface Entry {
  readonly loading: Promise<ResidentEncoder>
  users: number
}

/** Of one request in all, as OpenAI's. */
const MOST_TOKENS = 300_000

/** One text of a request: its tokens, and its words where words are told. */
interface Asked {
  readonly tokens: Int32Array
  readonly types: Int32Array
  readonly words?: { readonly text: string } & EncodedWords
}

export class Encoders {
  readonly #threads: number
  /** In the order of use, the longest unused first. */
  readonly #targets = new Map<string, Entry>()

  constructor(threads: number) {
    this.#threads = threads
  }

  /** Makes a target resident. */
  async load(target: Target): Promise<void> {
    await this.#with(target, (encoder) => encoder.session(encoder.rowLength(1)))
  }

  /** Gives a target back, as soon as no request uses it. */
  async forget(target: Target): Promise<void> {
    const name = nameOf(target)
    const entry = this.#targets.get(name)
    this.#targets.delete(name)
    if (entry?.users === 0) await close(entry)
  }

  /** Whether a tuned encoder is served as it was trained. */
  certify({ target, evidence }: CertifyRequest, turn: TakeTurn): Promise<Verdict> {
    return this.#with(target, async (encoder) => {
      const { texts = [] } = evidence
      const input = texts.map(({ text }) => text)
      const asked = input.map((text, i) => this.#read(encoder, { input }, text, i))
      const answers: TextAnswer[] = []
      const { signal } = new AbortController()
      for await (const { batch, rows } of this.#answers(encoder, asked, { turn, signal }))
        for (const { index, own } of cutRows(batch, asked, rows))
          answers[index] = { tokens: asked[index]!.tokens, answers: own.slice() }
      return judgeTexts(evidence, answers)
    })
  }

  /** Answers every text of the request. */
  encode(request: EncodeRequest, context: HandlerContext): Promise<Encodings> {
    return this.#with(request.target, async (encoder) => {
      refuse(request, encoder)
      const texts = request.input.map((item, i) => this.#read(encoder, request, item, i))
      const prompt_tokens = texts.reduce((n, { tokens }) => n + tokens.length, 0)
      if (prompt_tokens > MOST_TOKENS)
        throw invalidRequest(
          `Invalid 'input': it has ${prompt_tokens} tokens in all, and a request may have ${MOST_TOKENS}.`,
          { param: 'input', code: 'max_tokens_per_request' },
        )
      const results: Encodings['results'] = new Array(texts.length)
      for await (const { batch, rows } of this.#answers(encoder, texts, context))
        this.#tell(encoder, request, { batch, texts, rows, results })
      return { prompt_tokens, results }
    })
  }

  /** What the graph answers, run by run: rows of all its texts, end to end. */
  async *#answers(
    encoder: ResidentEncoder,
    texts: readonly Asked[],
    { turn, signal }: HandlerContext,
  ): AsyncGenerator<{ batch: TextBatch; rows: Float32Array }> {
    const length = encoder.rowLength(texts.reduce((n, { tokens }) => n + tokens.length, 0))
    const session = await encoder.session(length)
    for (const batch of textBatches(texts, { rows: 1, length })) {
      const feeds = feedsFor(encoder.weights, {
        ...batch.feeds,
        ...askedOf(encoder, batch, texts, length),
      })
      signal.throwIfAborted()
      const outputs = await (async () => {
        using _turn = await turn()
        return session.run({ ...feeds, ...encoder.feeds })
      })()
      yield { batch, rows: outputs.answers!.data as Float32Array }
    }
  }

  /** Gives back everything that no request uses. */
  async clear(): Promise<void> {
    await this.#forgetIdle(0)
  }

  #read(
    { tokenizer, weights, use }: ResidentEncoder,
    { input }: Pick<EncodeRequest, 'input'>,
    item: string | number[],
    at: number,
  ): Asked {
    const most = weights.config.max_position_embeddings
    const param = input.length === 1 ? 'input' : `input.${at}`
    if (item.length === 0)
      throw invalidRequest(`Invalid '${param}': it is empty.`, { param, code: 'invalid_value' })
    const words =
      use.method === 'classification' && use.task === 'tokens'
        ? { text: textOf(item, param), ...encodeWords(tokenizer, textOf(item, param), Infinity) }
        : undefined
    const { ids, types } =
      words?.texts ??
      (typeof item === 'string'
        ? tokenizer.encodeTexts(item, undefined, Infinity)
        : { ids: item, types: item.map(() => 0) })
    for (const id of ids)
      if (!Number.isSafeInteger(id) || id < 0 || id >= weights.config.vocab_size)
        throw invalidRequest(`Invalid '${param}': ${id} is no token of the model.`, {
          param,
          code: 'invalid_value',
        })
    if (ids.length > most)
      throw invalidRequest(
        `This model's maximum context length is ${most} tokens, however '${param}' has ${ids.length}.`,
        { param, code: 'context_length_exceeded' },
      )
    return { tokens: Int32Array.from(ids), types: Int32Array.from(types), ...(words && { words }) }
  }

  #tell(
    { use, pooling }: ResidentEncoder,
    { dimensions }: EncodeRequest,
    answer: {
      batch: TextBatch
      texts: readonly Asked[]
      rows: Float32Array
      results: Encodings['results']
    },
  ): void {
    const { batch, texts, rows, results } = answer
    for (const { index, own } of cutRows(batch, texts, rows)) {
      const text = texts[index]!
      if (use.method === 'embedding')
        results[index] = embeddingOf(own, { dimensions, normalized: pooling.normalized })
      else if (text.words) results[index] = spansOf(own, use.labels, text.words)
      else results[index] = labelsOf(own, use.labels, use.task)
    }
  }

  async #with<T>(target: Target, f: (encoder: ResidentEncoder) => Promise<T>): Promise<T> {
    const name = nameOf(target)
    const entry = this.#targets.get(name) ?? this.#enter(name, target)
    this.#targets.delete(name)
    this.#targets.set(name, entry)
    entry.users++
    try {
      return await f(await entry.loading)
    } finally {
      entry.users--
      if (this.#targets.get(name) === entry) await this.#forgetIdle(KEPT)
      else if (entry.users === 0) await close(entry)
    }
  }

  #enter(name: string, target: Target): Entry {
    const entry: Entry = { loading: loadEncoder(target, this.#threads), users: 0 }
    entry.loading.catch(() => {
      if (this.#targets.get(name) === entry) this.#targets.delete(name)
    })
    return entry
  }

  async #forgetIdle(keep: number): Promise<void> {
    for (const [name, { users, loading }] of this.#targets) {
      if (this.#targets.size <= keep) return
      if (users > 0) continue
      this.#targets.delete(name)
      await close({ loading })
    }
  }
}

const close = ({ loading }: Pick<Entry, 'loading'>) =>
  loading.then(
    (encoder) => encoder[Symbol.asyncDispose](),
    () => {},
  )

const nameOf = ({ model, adapter }: Target) => `${model}\n${adapter ?? ''}`

/** The rows of each text of a run. */
function* cutRows({ texts: places }: TextBatch, texts: readonly Asked[], rows: Float32Array) {
  let row = 0
  const width = rows.length / places.reduce((n, { index }) => n + rowsOf(texts[index]!), 0)
  for (const { index } of places) {
    const count = rowsOf(texts[index]!)
    yield { index, own: rows.subarray(row * width, (row + count) * width) }
    row += count
  }
}

/** What the head is asked of a text: one answer, or one for each word that has tokens. */
const rowsOf = ({ words }: Asked): number =>
  words ? words.firsts.filter((first) => first !== undefined).length : 1

/** For vectors the share of each token in its text's, for labels the places that the head reads. */
function askedOf(
  { use, pooling }: ResidentEncoder,
  { texts: places }: TextBatch,
  texts: readonly Asked[],
  length: number,
): Feeds {
  if (use.method === 'embedding') {
    const shares = new Float32Array(places.length * length)
    for (const [s, { index, at }] of places.entries()) {
      const n = pooling.by === 'first' ? 1 : texts[index]!.tokens.length
      shares.fill(1 / n, s * length + at, s * length + at + n)
    }
    return { shares: float32([places.length, length], shares) }
  }
  const index = places.flatMap(({ index, at }) => {
    const { words } = texts[index]!
    return words ? words.firsts.flatMap((first) => (first === undefined ? [] : [at + first])) : [at]
  })
  return { index: int64([index.length], index) }
}

function textOf(item: string | number[], param: string): string {
  if (typeof item === 'string') return item
  throw invalidRequest(`Invalid '${param}': this model labels words, so it takes texts only.`, {
    param,
    code: 'invalid_type',
  })
}

function refuse({ task, dimensions }: EncodeRequest, { use, weights }: ResidentEncoder): void {
  const where = { param: 'model', code: 'unsupported_model' }
  if (task === 'classification' && use.method !== 'classification')
    throw invalidRequest('This model has no labels: it was not tuned to classify.', where)
  if (task === 'embedding' && use.method !== 'embedding')
    throw invalidRequest('This model classifies; it gives no embeddings.', where)
  const { hidden_size } = weights.config
  if (dimensions !== undefined && dimensions > hidden_size)
    throw invalidRequest(
      `Invalid 'dimensions': embeddings of this model have ${hidden_size} numbers, but ${dimensions} were asked for.`,
      { param: 'dimensions', code: 'unsupported_value' },
    )
}
