// Token ids in, logits out: one base model, its sessions, and rows that each have an adapter of their own or none.

import type { LoraLayout } from '../models/adapters.ts'
import { scaleOf } from '../models/adapters.ts'
import type { ServedWeights } from '../models/serving.ts'
import { createSession, type Session } from '../runtime/session.ts'
import { float32, type HostTensor, int64 } from '../tensor.ts'
import { type Adapting, buildDecode, isStep, maskName } from './decode-graph.ts'
import { KvCache } from './kv-cache.ts'
import { LoraChunks } from './lora-chunks.ts'
import { LoneAdapter, LoraStack, type ResidentAdapter, type StackedBlock } from './lora-stack.ts'

interface Opened {
  readonly session: Session
  readonly blocks: readonly StackedBlock[]
}

/** Some tokens to append to slots of a cache, one list a slot and all of one length. */
export interface Appended {
  readonly cache: KvCache
  readonly from: number
  readonly rows: readonly (readonly number[])[]
  /** Of each row. */
  readonly adapters: readonly (ResidentAdapter | undefined)[]
  /** Whether they are multiplied as prompts are, not as tokens that are decoded. */
  readonly prompt?: boolean
}

/** A base model that decodes; its sessions are made when they are first needed. */
export class Decoder implements AsyncDisposable {
  readonly served: ServedWeights
  readonly #threads: number
  readonly #sessions = new Map<string, Promise<Opened>>()
  #stack: LoraStack | undefined
  #chunks: LoraChunks | undefined
  readonly #lone = new LoneAdapter()
  #laid = 0

  constructor(served: ServedWeights, threads: number) {
    this.served = served
    this.#threads = threads
  }

  /** An empty cache for sequences of this model. */
  newCache(): KvCache {
    const { config } = this.served.mapped
    return new KvCache({
      layers: config.num_hidden_layers,
      heads: config.num_key_value_heads,
      headDim: config.head_dim,
    })
  }

  /** Opens what rows without an adapter need. */
  async open(): Promise<void> {
    await this.#session('none', true)
    await this.#session('step')
  }

  /** An adapter laid out for this model; `flat` is its vector with gains where DoRA has magnitudes. */
  async lay(layout: LoraLayout, flat: Float32Array): Promise<ResidentAdapter> {
    const { use_dora } = layout.config
    const { blocks } = await this.#session(use_dora ? 'dora' : 'lora', true)
    if (!use_dora) await this.#session('step-one')
    // With a second one there may be batches of both.
    if (!use_dora && this.#laid++ > 0) await this.#session('step-many')
    return layAdapter(blocks, layout, flat)
  }

  /**
   * Appends tokens to one slot and returns the logits [V] after the last of them, or after each: these are judged, so they
   * are multiplied as decoding multiplies.
   */
  async read(
    cache: KvCache,
    slot: number,
    tokens: readonly number[],
    {
      adapter,
      everywhere = false,
    }: { adapter?: ResidentAdapter | undefined; everywhere?: boolean } = {},
  ): Promise<Float32Array[]> {
    cache.reserve(cache.length(slot) + tokens.length)
    const places = everywhere ? tokens.map((_, i) => i) : [tokens.length - 1]
    const rows = [tokens]
    return this.run({ cache, from: slot, rows, adapters: [adapter], prompt: !everywhere }, places)
  }

  /** Appends tokens, of each slot 0 … n−1 some, and returns each one's logits [V] after the last of its own. */
  async readTogether(
    cache: KvCache,
    tokens: readonly (readonly number[])[],
    adapters: readonly (ResidentAdapter | undefined)[],
  ): Promise<Float32Array[]> {
    const S = Math.max(...tokens.map(({ length }) => length))
    const ends = tokens.map((own, slot) => cache.length(slot) + own.length)
    cache.reserve(Math.max(...ends.map((end, slot) => end + S - tokens[slot]!.length)))
    // What fills a row up comes after its tokens, where none of them looks; it is forgotten at once.
    const rows = tokens.map((own) => [...own, ...new Array<number>(S - own.length).fill(0)])
    const places = tokens.map((own, slot) => slot * S + own.length - 1)
    const logits = await this.run({ cache, from: 0, rows, adapters, prompt: true }, places)
    for (const [slot, end] of ends.entries()) cache.truncate(slot, end)
    return logits
  }

  /** Appends one token to each of the slots 0 … n−1 and returns each one's logits [V]. */
  async decode(
    cache: KvCache,
    tokens: readonly number[],
    adapters: readonly (ResidentAdapter | undefined)[] = tokens.map(() => undefined),
  ): Promise<Float32Array[]> {
    const longest = Math.max(...tokens.map((_, slot) => cache.length(slot)))
    cache.reserve(longest + 1)
    const rows = tokens.map((token) => [token])
    return this.run(
      { cache, from: 0, rows, adapters },
      tokens.map((_, i) => i),
    )
  }

  /** Appends and returns the logits of these places: row b's token s has the place b·S + s. */
  async run(
    { cache, from, rows, adapters, prompt = false }: Appended,
    places: readonly number[],
  ): Promise<Float32Array[]> {
    const { config } = this.served.mapped
    const last = config.max_position_embeddings - 1 // for what fills rows up
    const [B, S] = [rows.length, rows[0]!.length]
    const past = rows.map((_, b) => cache.length(from + b))
    const C = cache.capacity
    const { feeds: stacked, adapting } = await this.#adapted(adapters, S)
    const { session } = await this.#session(adapting, prompt)
    const step = isStep(adapting)
    const G = config.num_key_value_heads
    const feeds: Record<string, HostTensor> = {
      ...stacked,
      tokens: int64([B, S], rows.flat()),
      positions: int64(
        [B, S],
        past.flatMap((n) => Array.from({ length: S }, (_, i) => Math.min(n + i, last))),
      ),
      index: int64([places.length], places),
      capacity: int64([1], [C]),
    }
    for (const window of new Set(config.sliding_windows ?? [null]))
      feeds[maskName(window ?? undefined)] = step
        ? byHead(maskOf(past, { S, C, window: window ?? undefined }), G)
        : maskOf(past, { S, C, window: window ?? undefined })
    for (const [layer, { key, value }] of cache.views(from, B, step).entries()) {
      feeds[`past.${layer}.key`] = key
      feeds[`past.${layer}.value`] = value
    }
    const results = await session.run(feeds)
    const fresh = results.fresh!.data as Float32Array
    const size = B * S * G * config.head_dim
    cache.append(
      from,
      [B, S],
      Array.from({ length: config.num_hidden_layers }, (_, layer) => ({
        key: fresh.subarray(2 * layer * size, (2 * layer + 1) * size),
        value: fresh.subarray((2 * layer + 1) * size, (2 * layer + 2) * size),
      })),
    )
    const all = results.logits!.data as Float32Array
    const V = config.vocab_size
    return places.map((_, i) => all.subarray(i * V, (i + 1) * V))
  }

  /** Forgets the matrices that were made of adapters. */
  rest(): void {
    this.#stack?.clear()
    this.#chunks?.clear()
    this.#lone.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opening of this.#sessions.values()) {
      const opened = await opening.catch(() => undefined)
      await opened?.session[Symbol.asyncDispose]()
    }
    this.#sessions.clear()
  }

  /** Which session these adapters take, and what it is fed of them, each row S times. */
  async #adapted(
    adapters: readonly (ResidentAdapter | undefined)[],
    S: number,
  ): Promise<{ feeds: Readonly<Record<string, HostTensor>>; adapting: Adapting }> {
    const [first] = adapters
    const gained = adapters.some((adapter) => adapter?.gains)
    const same = adapters.every((adapter) => adapter === first)
    if (same && !first) return { feeds: {}, adapting: S === 1 ? 'step' : 'none' }
    if (S === 1 && !gained) {
      const adapting = same ? 'step-one' : 'step-many'
      const { blocks } = await this.#session(adapting)
      if (first && same) return { feeds: this.#lone.feeds(blocks, first), adapting }
      this.#chunks ??= new LoraChunks(blocks)
      return { feeds: this.#chunks.feed(adapters), adapting }
    }
    const adapting = gained ? 'dora' : 'lora'
    this.#stack ??= new LoraStack((await this.#session(adapting, true)).blocks, this.#lone)
    const each = adapters.flatMap((adapter) => new Array<typeof adapter>(S).fill(adapter))
    return { feeds: this.#stack.feed(each).feeds, adapting }
  }

  #session(adapting: Adapting, prompt = false): Promise<Opened> {
    const eight = prompt && !isStep(adapting) && this.served.prompts !== undefined
    const name = eight ? `${adapting}, prompts` : adapting
    const known = this.#sessions.get(name)
    if (known) return known
    const opening = (async () => {
      const { onnx, blocks } = buildDecode(this.served, adapting, eight)
      const prepack = this.served.int4 !== undefined && !eight
      return { session: await createSession(onnx, { threads: this.#threads, prepack }), blocks }
    })()
    this.#sessions.set(name, opening)
    opening.catch(() => this.#sessions.delete(name))
    return opening
  }
}

/** A mask [B, 1, 1, 1, W] → [B·heads, 1, 1, W], the same for all heads of a sequence. */
function byHead({ dims, data }: HostTensor, heads: number): HostTensor {
  const [B, W] = [dims[0]!, dims.at(-1)!]
  const mask = new Float32Array(B * heads * W)
  for (let row = 0; row < B * heads; row++) {
    const b = Math.floor(row / heads)
    mask.set((data as Float32Array).subarray(b * W, (b + 1) * W), row * W)
  }
  return float32([B * heads, 1, 1, W], mask)
}

/** 0 where a token may look, −∞ where not: its sequence's past, then itself and what came before it in this run. */
function maskOf(
  past: readonly number[],
  {
    S,
    C,
    window = Number.POSITIVE_INFINITY,
  }: { S: number; C: number; window?: number | undefined },
): HostTensor {
  const width = C + S
  const mask = new Float32Array(past.length * S * width)
  const never = Number.NEGATIVE_INFINITY
  for (const [b, n] of past.entries())
    for (let s = 0; s < S; s++) {
      const row = (b * S + s) * width
      mask.fill(never, row + n, row + C)
      mask.fill(never, row + C + s + 1, row + width)
      const first = n + s + 1 - window // the first token that is near enough
      if (first > 0) mask.fill(never, row, row + Math.min(first, n))
      if (first > n) mask.fill(never, row + C, row + C + first - n)
    }
  return float32([past.length, 1, 1, S, width], mask)
}

function layAdapter(
  blocks: readonly StackedBlock[],
  { config, modules }: LoraLayout,
  flat: Float32Array,
): ResidentAdapter {
  const { rank } = config
  const scale = scaleOf(config)
  const byName = new Map(modules.map((module) => [module.name, module]))
  let bytes = 0
  const gains: Float32Array[] = []
  const laid = blocks.map(({ members, widths, inner }) => {
    const gain = new Float32Array(config.use_dora ? widths.reduce((a, b) => a + b, 0) : 0).fill(1)
    let left = 0
    const parts = members.map((name, i) => {
      const module = byName.get(name)
      const out = widths[i]!
      if (module?.magnitude !== undefined)
        gain.set(flat.subarray(module.magnitude, module.magnitude + out), left)
      left += out
      if (!module) return undefined
      const a = new Float32Array(inner * rank)
      const b = new Float32Array(rank * out)
      for (let r = 0; r < rank; r++) {
        for (let j = 0; j < inner; j++) a[j * rank + r] = flat[module.a + r * inner + j]!
        for (let o = 0; o < out; o++) b[r * out + o] = scale * flat[module.b + o * rank + r]!
      }
      bytes += 4 * (a.length + b.length)
      return { a, b }
    })
    bytes += 4 * gain.length
    gains.push(gain)
    return parts
  })
  return { rank, blocks: laid, gains: config.use_dora ? gains : undefined, bytes }
}
