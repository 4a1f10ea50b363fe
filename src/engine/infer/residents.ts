// What is loaded: base models, their decoding sessions, and the adapters over them. Loads once, whoever asks.

import { totalmem } from 'node:os'
import { invalidRequest } from '../../errors.ts'
import { flatFromAdapter, loraConfigOf, loraLayout } from '../models/adapters.ts'
import { gainsOf } from '../models/dora.ts'
import { int4Of } from '../models/int4.ts'
import { withInt8 } from '../models/int8.ts'
import type { ServedWeights } from '../models/serving.ts'
import { openTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts'
import { readAdapter } from '../weights/adapter.ts'
import { type Checkpoint, type MappedWeights, openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import { openWholeModel } from '../weights/whole-model.ts'
import { Decoder } from './decoder.ts'
import type { KvCache } from './kv-cache.ts'
import type { ResidentAdapter } from './lora-stack.ts'
import type { ServedPrecision, Target } from './request.ts'

interface ResidentModel extends Batch {
  readonly checkpoint: Checkpoint
  readonly mapped: MappedWeights
  readonly tokenizer: Tokenizer
}

/** What is decoded together: sequences of one base model, whatever their adapters. */
export interface Batch {
  readonly key: string
  readonly decoder: Decoder
  readonly cache: KvCache
  /** Who lies in each of the cache's slots. */
  readonly slots: unknown[]
}

/** A base model with one adapter or none, ready to decode. */
export interface ResidentTarget {
  readonly key: string
  readonly checkpoint: Checkpoint
  readonly tokenizer: Tokenizer
  readonly batch: Batch
  readonly adapter: ResidentAdapter | undefined
  /** Gives back what no other target shares. */
  readonly close?: () => Promise<void>
}

/** A decoder and the adapter that is laid out for it. */
export type Exact = Pick<ResidentTarget, 'adapter'> & Pick<Batch, 'decoder'>

/** A target that stays as long as this is held. */
export interface Lease extends Disposable {
  readonly target: ResidentTarget
}

interface Entry {
  readonly loading: Promise<ResidentTarget>
  users: number
  /** Of its adapter, once it is loaded. */
  bytes: number
  /** Is told when nobody uses it any more. */
  unused?: () => void
}

export interface ResidentsOptions {
  readonly threads: number
  readonly precision?: ServedPrecision | undefined
  /** What adapters may take together; idle ones beyond it are forgotten, the longest unused first. */
  readonly adapterBytes?: number | undefined
}

/** A sixteenth of the machine. */
const ADAPTER_BYTES = totalmem() / 16

/** The inference thread's memory. */
export class Residents {
  readonly #options: { threads: number; precision: ServedPrecision; adapterBytes: number }
  readonly #models = new Map<string, Promise<ResidentModel>>()
  /** In the order of use, the longest unused first. */
  readonly #targets = new Map<string, Entry>()
  #loads = 0

  constructor({ threads, precision, adapterBytes = ADAPTER_BYTES }: ResidentsOptions) {
    this.#options = { threads, precision: precision ?? 'auto', adapterBytes }
  }

  /** Adapters that are loaded, and what they take. */
  get usage(): { adapters: number; bytes: number } {
    const loaded = [...this.#targets.values()].filter(({ bytes }) => bytes > 0)
    return { adapters: loaded.length, bytes: loaded.reduce((sum, { bytes }) => sum + bytes, 0) }
  }

  /**
   * The target, loaded if it is not yet there; it stays until the lease on it is disposed. Throws what is wrong with
   * its files, and tries anew the next time.
   */
  async use(target: Target): Promise<Lease> {
    const name = `${target.model}\n${target.adapter ?? ''}`
    const entry = this.#targets.get(name) ?? this.#enter(name, target)
    this.#targets.delete(name)
    this.#targets.set(name, entry)
    entry.users++
    const release = () => {
      entry.users--
      if (entry.users === 0) entry.unused?.()
    }
    try {
      const resident = await entry.loading
      entry.bytes = resident.adapter?.bytes ?? 0
      this.#forgetIdle(this.#options.adapterBytes)
      return { target: resident, [Symbol.dispose]: release }
    } catch (error) {
      release()
      throw error
    }
  }

  /** The same model in float32, apart from what is resident; nothing where that is float32 already. */
  async exact(target: Target): Promise<(Exact & AsyncDisposable) | undefined> {
    const { mapped, decoder: served } = await this.#model(target)
    using lease = await this.use(target)
    const isWhole = lease.target.batch.decoder !== served
    if (isWhole || !(served.served.int4 || served.served.mapped.int8)) return undefined
    const decoder = new Decoder({ mapped }, this.#options.threads)
    const adapter =
      target.adapter && (await this.#adapter({ mapped, decoder }, target.adapter).catch(failed))
    async function failed(error: unknown): Promise<never> {
      await decoder[Symbol.asyncDispose]()
      throw error
    }
    const close = () => decoder[Symbol.asyncDispose]()
    return { decoder, adapter: adapter || undefined, [Symbol.asyncDispose]: close }
  }

  /** What a target's frozen weights are multiplied in. */
  static precisionOf({ batch }: ResidentTarget): Exclude<ServedPrecision, 'auto'> {
    const { int4, mapped } = batch.decoder.served
    return int4 ? 'int4' : mapped.int8 ? 'int8' : 'fp32'
  }

  /** Gives back everything that no request uses. */
  async clear(): Promise<void> {
    this.#forgetIdle(-1)
    if (this.#targets.size > 0) return
    for (const [path, loading] of this.#models) {
      this.#models.delete(path)
      await (await loading).decoder[Symbol.asyncDispose]()
    }
  }

  /** Takes a base model out, with all that is over it, when no request uses it any more; disposed, it is closed. */
  async part(path: string): Promise<AsyncDisposable> {
    const own = [...this.#targets].filter(([name]) => name.startsWith(`${path}\n`))
    const model = this.#models.get(path)
    this.#models.delete(path)
    for (const [name] of own) this.#targets.delete(name)
    for (const [, entry] of own)
      if (entry.users > 0)
        await new Promise<void>((resolve) => {
          entry.unused = resolve
        })
    return {
      async [Symbol.asyncDispose]() {
        for (const [, { loading }] of own)
          await loading.then((target) => target.close?.()).catch(() => {})
        const loaded = await model?.catch(() => undefined)
        await loaded?.decoder[Symbol.asyncDispose]()
      },
    }
  }

  #enter(name: string, target: Target): Entry {
    // The key is new with each load: sequences of a target that was forgotten do not mix with those of its successor.
    const entry: Entry = {
      loading: this.#load(`${name}\n${++this.#loads}`, target),
      users: 0,
      bytes: 0,
    }
    entry.loading.catch(() => {
      if (this.#targets.get(name) === entry) this.#targets.delete(name)
    })
    return entry
  }

  #forgetIdle(keep: number): void {
    let { bytes } = this.usage
    for (const [name, { users, loading, bytes: own }] of this.#targets) {
      if (bytes <= keep) return
      if (users > 0) continue
      this.#targets.delete(name)
      bytes -= own
      loading.then((target) => target.close?.()).catch(() => {})
    }
  }

  async #load(key: string, target: Target): Promise<ResidentTarget> {
    const model = await this.#model(target)
    const whole = target.adapter && (await openWholeModel(target.adapter, model.checkpoint))
    if (whole) return this.#loadWhole(key, model, await mapWeights(whole, target.cache))
    const { checkpoint, tokenizer, decoder } = model
    const adapter =
      target.adapter === undefined ? undefined : await this.#adapter(model, target.adapter)
    if (!adapter) await decoder.open()
    return { key, checkpoint, tokenizer, batch: model, adapter }
  }

  async #adapter(
    { mapped, decoder }: Pick<ResidentModel, 'mapped' | 'decoder'>,
    path: string,
  ): Promise<ResidentAdapter> {
    const adapter = await readAdapter(path)
    const [saved] = adapter.saved?.keys() ?? []
    if (saved !== undefined)
      throw invalidRequest(
        `The model's adapter has ${saved}, trained whole (modules_to_save), which cannot be served beside its base. Merge it into the base.`,
        { param: 'model', code: 'invalid_model' },
      )
    const layout = loraLayout(mapped, loraConfigOf(adapter))
    const { threads } = this.#options
    // Gains are of the weights as they are, whatever they are served in.
    const place = { weights: mapped, layout, threads }
    return decoder.lay(layout, await gainsOf(place, flatFromAdapter(layout, adapter)))
  }

  /** A model of its own, but for what it shares with its base: the tokenizer and the template. */
  async #loadWhole(
    key: string,
    { checkpoint, tokenizer }: ResidentModel,
    mapped: MappedWeights,
  ): Promise<ResidentTarget> {
    const decoder = new Decoder({ mapped }, this.#options.threads)
    await decoder.open()
    const close = async () => decoder[Symbol.asyncDispose]()
    const batch = { key, decoder, cache: decoder.newCache(), slots: [] }
    return { key, checkpoint, tokenizer, batch, adapter: undefined, close }
  }

  #model({ model: path, cache }: Target): Promise<ResidentModel> {
    const known = this.#models.get(path)
    if (known) return known
    const loading = (async () => {
      const checkpoint = await openCheckpoint(path)
      if (checkpoint.config.encoder)
        throw invalidRequest(
          'This model is an encoder: it answers /v1/embeddings or /v1/classifications, and goes on with no text.',
          { param: 'model', code: 'unsupported_model' },
        )
      const [mapped, tokenizer] = await Promise.all([
        mapWeights(checkpoint, cache),
        openTokenizer(checkpoint),
      ])
      const precision = precisionFor(checkpoint, this.#options.precision)
      const served = await serve(precision, { mapped, tokenizer, cache })
      const decoder = new Decoder(served, this.#options.threads)
      const key = `${path}\n${++this.#loads}`
      return { key, checkpoint, mapped, tokenizer, decoder, cache: decoder.newCache(), slots: [] }
    })()
    this.#models.set(path, loading)
    loading.catch(() => this.#models.delete(path))
    return loading
  }
}

const FOUR_BITS: ReadonlySet<string> = new Set(['Q4_0', 'Q4_1'])

/** Blocks of four bits lose nothing where most of the file's matrices are such; else the weights stay as they are. */
export function precisionFor(
  { tensors }: Checkpoint,
  wanted: ServedPrecision,
): Exclude<ServedPrecision, 'auto'> {
  if (wanted !== 'auto') return wanted
  const matrices = [...tensors.values()].filter(({ dims }) => dims.length === 2)
  const four = matrices.filter(({ dtype }) => FOUR_BITS.has(dtype))
  return four.length > matrices.length / 2 ? 'int4' : 'fp32'
}

async function serve(
  precision: Exclude<ServedPrecision, 'auto'>,
  { mapped, tokenizer, cache }: { mapped: MappedWeights; tokenizer: Tokenizer; cache: string },
): Promise<ServedWeights> {
  switch (precision) {
    case 'fp32':
      return { mapped }
    case 'int8':
      return { mapped: await withInt8(mapped, cache, tokenizer) }
    case 'int4':
      return {
        mapped,
        int4: await int4Of(mapped, cache),
        prompts: (await withInt8(mapped, cache, tokenizer)).int8,
      }
    default:
      return precision satisfies never
  }
}
