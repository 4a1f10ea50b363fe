// What is loaded: base models, their decoding sessions, and the adapters over them. Loads once, whoever asks.

import { invalidRequest } from '../../errors.ts'
import {
  adapterFeeds,
  flatFromAdapter,
  type LoraLayout,
  loraConfigOf,
  loraLayout,
} from '../models/adapters.ts'
import { gainsOf } from '../models/dora.ts'
import type { Session } from '../runtime/session.ts'
import { openTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts'
import { readAdapter } from '../weights/adapter.ts'
import { type Checkpoint, type MappedWeights, openCheckpoint } from '../weights/checkpoint.ts'
import { mapWeights } from '../weights/mapped.ts'
import { openWholeModel } from '../weights/whole-model.ts'
import { createDecoderSession, Decoder } from './decoder.ts'
import type { Target } from './request.ts'

interface ResidentModel {
  readonly checkpoint: Checkpoint
  readonly mapped: MappedWeights
  readonly tokenizer: Tokenizer
  /** One for the bare model (key ''), one for each kind of adapter. */
  readonly sessions: Map<string, Promise<Session>>
}

/** A base model with one adapter or none, ready to decode. */
export interface ResidentTarget {
  readonly key: string
  readonly checkpoint: Checkpoint
  readonly tokenizer: Tokenizer
  readonly decoder: Decoder
  /** Who lies in each of the cache's slots. */
  readonly slots: unknown[]
  /** Gives back what no other target shares. */
  readonly close?: () => Promise<void>
}

/** A target that stays as long as this is held. */
export interface Lease extends Disposable {
  readonly target: ResidentTarget
}

interface Entry {
  readonly loading: Promise<ResidentTarget>
  users: number
}

/** Adapters of idle targets beyond this many are forgotten, the longest unused first. */
const KEPT_TARGETS = 32

/** The inference thread's memory. */
export class Residents {
  readonly #threads: number
  readonly #models = new Map<string, Promise<ResidentModel>>()
  /** In the order of use, the longest unused first. */
  readonly #targets = new Map<string, Entry>()
  #loads = 0

  constructor(threads: number) {
    this.#threads = threads
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
    }
    try {
      const resident = await entry.loading
      this.#forgetIdle(KEPT_TARGETS)
      return { target: resident, [Symbol.dispose]: release }
    } catch (error) {
      release()
      throw error
    }
  }

  /** Gives back everything that no request uses. */
  async clear(): Promise<void> {
    this.#forgetIdle(0)
    if (this.#targets.size > 0) return
    for (const [path, loading] of this.#models) {
      this.#models.delete(path)
      const { sessions } = await loading
      for (const session of sessions.values()) await (await session)[Symbol.asyncDispose]()
    }
  }

  #enter(name: string, target: Target): Entry {
    // The key is new with each load: sequences of a target that was forgotten do not mix with those of its successor.
    const entry: Entry = { loading: this.#load(`${name}\n${++this.#loads}`, target), users: 0 }
    entry.loading.catch(() => {
      if (this.#targets.get(name) === entry) this.#targets.delete(name)
    })
    return entry
  }

  #forgetIdle(keep: number): void {
    for (const [name, { users, loading }] of this.#targets) {
      if (this.#targets.size <= keep) return
      if (users > 0) continue
      this.#targets.delete(name)
      loading.then((target) => target.close?.()).catch(() => {})
    }
  }

  async #load(key: string, target: Target): Promise<ResidentTarget> {
    const model = await this.#model(target)
    const whole = target.adapter && (await openWholeModel(target.adapter, model.checkpoint))
    if (whole) return this.#loadWhole(key, model, await mapWeights(whole, target.cache))
    const adapter = target.adapter === undefined ? undefined : await readAdapter(target.adapter)
    const layout = adapter && loraLayout(model.mapped, loraConfigOf(adapter))
    const session = await this.#session(model, layout)
    const place = layout && { weights: model.mapped, layout, threads: this.#threads }
    const vector = place && (await gainsOf(place, flatFromAdapter(place.layout, adapter)))
    return {
      key,
      checkpoint: model.checkpoint,
      tokenizer: model.tokenizer,
      decoder: new Decoder(session, model.mapped, layout && vector && adapterFeeds(layout, vector)),
      slots: [],
    }
  }

  /** A model of its own, but for what it shares with its base: the tokenizer and the template. */
  async #loadWhole(
    key: string,
    { checkpoint, tokenizer }: ResidentModel,
    mapped: MappedWeights,
  ): Promise<ResidentTarget> {
    const session = await createDecoderSession(mapped, undefined, this.#threads)
    const close = async () => session[Symbol.asyncDispose]()
    return { key, checkpoint, tokenizer, decoder: new Decoder(session, mapped), slots: [], close }
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
      return { checkpoint, mapped, tokenizer, sessions: new Map() }
    })()
    this.#models.set(path, loading)
    loading.catch(() => this.#models.delete(path))
    return loading
  }

  #session({ mapped, sessions }: ResidentModel, layout: LoraLayout | undefined): Promise<Session> {
    const key = layout ? JSON.stringify(layout.config) : ''
    const known = sessions.get(key)
    if (known) return known
    const opening = createDecoderSession(mapped, layout, this.#threads)
    sessions.set(key, opening)
    opening.catch(() => sessions.delete(key))
    return opening
  }
}
