// Token ids in, logits out: the decoding session of one base model and one kind of adapter, and its cache.

import type { LoraLayout } from '../models/adapters.ts'
import { createSession, type Session } from '../runtime/session.ts'
import { type HostTensor, int32, int64 } from '../tensor.ts'
import type { MappedWeights } from '../weights/checkpoint.ts'
import { buildDecode } from './decode-graph.ts'
import { KvCache } from './kv-cache.ts'

/** A session; adapters of one layout share it. */
export const createDecoderSession = (
  mapped: MappedWeights,
  layout: LoraLayout | undefined,
  threads: number,
): Promise<Session> => createSession(buildDecode(mapped, layout), { threads })

/** The sequences of one target (a base model with one adapter, or none) that are being decoded. */
export class Decoder {
  readonly #session: Session
  readonly #adapter: Readonly<Record<string, HostTensor>>
  readonly #vocabulary: number
  readonly #layers: number
  readonly cache: KvCache

  /** `adapter` is what adapterFeeds() gives, empty for the bare model. */
  constructor(session: Session, mapped: MappedWeights, adapter: Record<string, HostTensor> = {}) {
    const { config } = mapped
    this.#session = session
    this.#adapter = adapter
    this.#vocabulary = config.vocab_size
    this.#layers = config.num_hidden_layers
    this.cache = new KvCache({
      layers: config.num_hidden_layers,
      heads: config.num_key_value_heads,
      headDim: config.head_dim,
    })
  }

  /** Appends tokens to one slot and returns the logits [V] after the last of them. */
  async prefill(slot: number, tokens: readonly number[]): Promise<Float32Array> {
    const length = this.cache.length(slot) + tokens.length
    this.cache.reserve(length)
    const [logits] = await this.#run(slot, [tokens])
    return logits!
  }

  /** Appends tokens to one slot and returns the logits [V] after each of them: many megabytes for a long piece. */
  async score(slot: number, tokens: readonly number[]): Promise<Float32Array[]> {
    this.cache.reserve(this.cache.length(slot) + tokens.length)
    return this.#run(slot, [tokens], { everywhere: true })
  }

  /** Appends one token to each of the slots 0 … n−1 and returns each one's logits [V]. */
  async decode(tokens: readonly number[]): Promise<Float32Array[]> {
    const longest = Math.max(...tokens.map((_, slot) => this.cache.length(slot)))
    this.cache.reserve(longest + 1)
    return this.#run(
      0,
      tokens.map((t) => [t]),
    )
  }

  async #run(
    from: number,
    rows: readonly (readonly number[])[],
    { everywhere = false } = {},
  ): Promise<Float32Array[]> {
    const B = rows.length
    const S = rows[0]!.length
    const places = everywhere ? B * S : B
    const lengths = rows.map((_, b) => this.cache.length(from + b) + S)
    const feeds: Record<string, HostTensor> = {
      ...this.#adapter,
      tokens: int64([B, S], rows.flat()),
      positions: int64(
        [B, S],
        lengths.flatMap((n) => Array.from({ length: S }, (_, i) => n - S + i)),
      ),
      last_index: int32(
        [B],
        lengths.map((n) => n - 1),
      ),
      total: int32([], [Math.max(...lengths)]),
      index: int64(
        [places],
        Array.from({ length: places }, (_, i) => (everywhere ? i : i * S + S - 1)),
      ),
    }
    const into: Record<string, HostTensor> = {}
    for (let layer = 0; layer < this.#layers; layer++) {
      const { key, value } = this.cache.view(layer, from, B)
      feeds[`past.${layer}.key`] = key
      feeds[`past.${layer}.value`] = value
      into[`present.${layer}.key`] = key
      into[`present.${layer}.value`] = value
    }
    const { logits } = await this.#session.run(feeds, into)
    for (const [b, length] of lengths.entries()) this.cache.setLength(from + b, length)
    const all = logits!.data as Float32Array
    const V = this.#vocabulary
    return Array.from({ length: places }, (_, i) => all.subarray(i * V, (i + 1) * V))
  }
}
