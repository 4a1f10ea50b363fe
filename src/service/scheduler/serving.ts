// Who answers inference: owns the thread, says which weights a model's name stands for, and bounds what waits.
// Knows no HTTP and no tokens.

import type { EncodeRequest, Encodings } from '../../engine/infer/encode-request.ts'
import type {
  GenerateRequest,
  InferEvent,
  InferThreadData,
  InferThreadEvent,
  InferThreadRequest,
  Inside,
  ServedPrecision,
  Target,
} from '../../engine/infer/request.ts'
import type { Evidence, Verdict } from '../../engine/parity/parity.ts'
import { spawn, type TakeTurn, type Thread } from '../../engine/runtime/thread.ts'
import { ApiError, overloaded, unavailable } from '../../errors.ts'
import type { ResolvedModel } from '../models/model.ts'

/** What to generate; which weights answer comes from the model. */
export type Generation = Omit<GenerateRequest, 'type' | 'target'>

/** Texts to encode. */
export type Encoding = Omit<EncodeRequest, 'type' | 'target'>

export interface ServingOptions {
  takeTurn: TakeTurn
  /** That the device computes with; absent: all of this machine. */
  threads?: number
  /** Of the frozen base models; absent: auto. */
  precision?: ServedPrecision
  /** What loaded adapters may take; absent: a sixteenth of the machine. */
  adapterBytes?: number
  /** Folder for converted weights, shared by all threads and processes. */
  cache: string
  /** Path of the `adapter_model.safetensors` of a tuned model on this machine, its config beside it. */
  adapterFile: (model: ResolvedModel) => Promise<string>
  log: { error(fields: object, message: string): void }
  /** Choices under way or waiting at most; what comes beyond is sent away with `Retry-After`. */
  capacity?: number
  /** Of one project's, so that others find a place. */
  projectCapacity?: number
  /** Is told how long a request waited for its first token, and how long each further one took, in seconds. */
  timed?: (what: Timed, seconds: number) => void
  /** The thread's entry file. */
  entry?: URL
}

export type Timed = 'first_token' | 'between_tokens' | 'request' | 'queue'

/** What nobody waits for may take of the places; the others stay free for those who do. */
const LOW_SHARE = 0.5

/** The most choices that one request may ask for. */
export const MAX_CHOICES = 128

/** The thread forgets what is unused beyond as many; what is told of it need not be exact. */
const KEPT_RESIDENTS = 32

const WORKER = new URL('../../engine/infer/worker.ts', import.meta.url)

/** Who answers: the thread of this process, or another process. */
export interface Answering {
  generate(
    model: ResolvedModel,
    generation: Generation,
    signal: AbortSignal,
  ): AsyncGenerator<InferEvent, void, undefined>
  encode(model: ResolvedModel, encoding: Encoding, signal: AbortSignal): Promise<Encodings>
}

/** Owns the inference thread; it starts with the first request and again after it died. */
export class Serving implements Answering, AsyncDisposable {
  readonly #options: ServingOptions
  readonly #capacity: number
  #thread: Thread<InferThreadRequest, InferThreadEvent> | undefined
  readonly #usage = { prompt_tokens: 0, completion_tokens: 0 }
  /** The longest unused first. */
  readonly #resident = new Set<string>()
  #taken = 0
  readonly #takenBy = new Map<string, number>()
  readonly #projectCapacity: number
  #disposed = false

  constructor(options: ServingOptions) {
    this.#options = options
    this.#capacity = options.capacity ?? 3 * MAX_CHOICES
    this.#projectCapacity = options.projectCapacity ?? 2 * MAX_CHOICES
  }

  /** Choices that are under way or waiting. */
  get taken(): number {
    return this.#taken
  }

  /** Tokens read and written so far. */
  get usage(): { readonly prompt_tokens: number; readonly completion_tokens: number } {
    return this.#usage
  }

  /** Ids of base models and hashes of adapters that answer without being loaded first. */
  get resident(): string[] {
    return [...this.#resident]
  }

  /** What goes on in the thread; undefined while there is none. */
  async inside(): Promise<Inside | undefined> {
    if (!this.#thread || this.#thread.closed) return undefined
    for await (const event of this.#run({ type: 'inside' }))
      if (event.type === 'inside') return event
    return undefined
  }

  /** Answers one prompt. Aborting `signal` frees its place; throws 429 when there is none. */
  async *generate(
    model: ResolvedModel,
    generation: Generation,
    signal: AbortSignal,
  ): AsyncGenerator<InferEvent, void, undefined> {
    const share = generation.low_priority ? LOW_SHARE : 1
    using _place = this.#take(model.project_id, generation.n, share)
    const clock = new Clock(this.#options.timed)
    try {
      const target = await this.#target(model)
      for await (const event of this.#run({ type: 'generate', target, ...generation }, signal)) {
        if (event.type === 'encoded' || event.type === 'certified' || event.type === 'inside')
          continue
        clock.heard(event)
        if (event.type === 'prompt') this.#noteResident(model)
        if (event.type === 'prompt') this.#usage.prompt_tokens += event.prompt_tokens
        if (event.type === 'finish') this.#usage.completion_tokens += event.completion_tokens
        yield event
      }
    } finally {
      clock.ended()
    }
  }

  /** Vectors or labels of texts; throws 429 when there is no place. */
  async encode(model: ResolvedModel, encoding: Encoding, signal: AbortSignal): Promise<Encodings> {
    using _place = this.#take(model.project_id, 1)
    const target = await this.#target(model)
    for await (const event of this.#run({ type: 'encode', target, ...encoding }, signal)) {
      if (event.type !== 'encoded') continue
      this.#noteResident(model)
      this.#usage.prompt_tokens += event.prompt_tokens
      const { type: _, ...encodings } = event
      return encodings
    }
    throw new Error('Encoding ended without a result.')
  }

  /** Makes a model resident, so that its first request does not wait. */
  async warm(model: ResolvedModel, signal?: AbortSignal): Promise<void> {
    const target = await this.#target(model)
    for await (const _ of this.#run({ type: 'load', target }, signal));
    this.#noteResident(model)
  }

  /** Holds what training says of a model against what is served of it. */
  async certify(model: ResolvedModel, evidence: Evidence): Promise<Verdict> {
    const target = await this.#target(model)
    for await (const event of this.#run({ type: 'certify', target, evidence }))
      if (event.type === 'certified') {
        this.#noteResident(model)
        return event.verdict
      }
    throw new Error('The parity check ended without a verdict.')
  }

  /** Gives the memory of one model back, which will not be asked again. */
  async forget(model: ResolvedModel): Promise<void> {
    const thread = this.#thread
    if (!thread || thread.closed) return
    const target = await this.#target(model)
    try {
      for await (const _ of thread.run({ type: 'forget', target }));
    } catch (error) {
      // A thread that has died has forgotten it.
      if (!thread.closed) throw error
    }
    this.#resident.delete(model.adapter?.sha256 ?? model.root)
  }

  /** Gives the memory of every resident model back; requests that come later load again. */
  async unload(): Promise<void> {
    this.#resident.clear()
    if (this.#thread && !this.#thread.closed) for await (const _ of this.#run({ type: 'unload' }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true
    await this.#thread?.[Symbol.asyncDispose]()
  }

  #take(project_id: string, n: number, share = 1): Disposable {
    const own = this.#takenBy.get(project_id) ?? 0
    if (this.#taken + n > share * this.#capacity)
      throw overloaded('The server is overloaded with other requests. Please retry shortly.')
    if (own + n > share * this.#projectCapacity)
      throw overloaded('Your project has too many requests under way. Please retry shortly.')
    this.#taken += n
    this.#takenBy.set(project_id, own + n)
    return {
      [Symbol.dispose]: () => {
        this.#taken -= n
        const left = this.#takenBy.get(project_id)! - n
        if (left > 0) this.#takenBy.set(project_id, left)
        else this.#takenBy.delete(project_id)
      },
    }
  }

  async *#run(request: InferThreadRequest, signal?: AbortSignal) {
    const thread = this.#running()
    try {
      yield* thread.run(request, signal)
    } catch (error) {
      if (error instanceof ApiError || signal?.aborted) throw error
      if (!thread.closed) throw error
      // The next request starts a new thread; this one may simply be sent again.
      if (this.#thread === thread) {
        this.#thread = undefined
        this.#resident.clear()
        if (!this.#disposed) this.#options.log.error({ err: error }, 'inference thread died')
      }
      throw unavailable('Inference was interrupted. Please retry.')
    }
  }

  #noteResident({ root, adapter }: ResolvedModel): void {
    for (const key of adapter ? [root, adapter.sha256] : [root]) {
      this.#resident.delete(key)
      this.#resident.add(key)
    }
    for (const key of this.#resident)
      if (this.#resident.size > KEPT_RESIDENTS) this.#resident.delete(key)
  }

  #running() {
    if (this.#disposed) throw unavailable('The server is shutting down.', 5)
    if (!this.#thread || this.#thread.closed)
      this.#thread = spawn(this.#options.entry ?? WORKER, this.#options.takeTurn, {
        threads: this.#options.threads,
        precision: this.#options.precision,
        adapterBytes: this.#options.adapterBytes,
      } satisfies InferThreadData)
    return this.#thread
  }

  async #target(model: ResolvedModel): Promise<Target> {
    const target = { model: model.base_path, cache: model.cache ?? this.#options.cache }
    return model.adapter ? { ...target, adapter: await this.#options.adapterFile(model) } : target
  }
}

/** Times one request by its events. */
class Clock {
  readonly #timed: (what: Timed, seconds: number) => void
  readonly #began = performance.now()
  readonly #last = new Map<number, number>()

  constructor(timed: ServingOptions['timed'] = () => {}) {
    this.#timed = timed
  }

  heard(event: InferThreadEvent): void {
    if (event.type === 'finish' && event.queue_seconds !== undefined)
      this.#timed('queue', event.queue_seconds)
    if (event.type !== 'delta') return
    const now = performance.now()
    const before = this.#last.get(event.index)
    if (before !== undefined) this.#timed('between_tokens', (now - before) / 1000)
    else if (this.#last.size === 0) this.#timed('first_token', (now - this.#began) / 1000)
    this.#last.set(event.index, now)
  }

  ended(): void {
    this.#timed('request', (performance.now() - this.#began) / 1000)
  }
}
