// Inference by another process: picks a live worker, asks it, and hands its events on. Knows no tensors.

import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { Encodings } from '../../engine/infer/encode-request.ts'
import type { InferEvent } from '../../engine/infer/request.ts'
import { ApiError, unavailable } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { Db } from '../db/pool.ts'
import { listWorkers, type WorkerRecord } from '../db/workers.ts'
import type { ResolvedModel } from '../models/model.ts'
import type { Answering, Encoding, Generation } from './serving.ts'

/** Where a worker takes generations; relative to its url. */
export const GENERATE_PATH = '/internal/generate'

/** And where it takes texts to encode. */
export const ENCODE_PATH = '/internal/encode'

/** What a worker is asked: it resolves the model by itself, for paths are of its own machine. */
export interface RelayedGeneration {
  project_id: string
  model: string
  generation: Generation
}

/** What a worker is asked to encode. */
export interface RelayedEncoding {
  project_id: string
  model: string
  encoding: Encoding
}

/** One line of a worker's answer; an empty line between them says only that it lives. */
export type RelayedLine<Event = InferEvent> =
  | { event: Event }
  | { error: Pick<ApiError, 'status' | 'message' | 'type' | 'param' | 'code' | 'headers'> }
  | { end: true }

export interface RelayedServingOptions {
  db: Db
  log: Logger
  /** A worker counts as alive so long after its last heartbeat. */
  alive_seconds?: number
  /** A worker that says nothing for so long, not even that it lives, is given up. */
  silence_ms?: number
}

/** How long a list of workers is believed: a request of many prompts asks once. */
const LIST_MS = 500

/** The worker cannot be reached, or went away in the middle. */
class WorkerAway extends Error {
  override readonly name = 'WorkerAway'
}

/** A path of the worker, and what is sent there besides the model. */
type Question = {
  path: string
  body: Pick<RelayedGeneration, 'generation'> | Pick<RelayedEncoding, 'encoding'>
}

export class RelayedServing implements Answering, AsyncDisposable {
  readonly #options: Required<RelayedServingOptions>
  readonly #agent = new Agent({ keepAlive: true })
  readonly #usage = { prompt_tokens: 0, completion_tokens: 0 }
  #taken = 0
  #listed: { at: number; workers: Promise<WorkerRecord[]> } | undefined

  constructor(options: RelayedServingOptions) {
    this.#options = { alive_seconds: 10, silence_ms: 20_000, ...options }
  }

  /** Choices that were passed on and are under way. */
  get taken(): number {
    return this.#taken
  }

  /** Tokens read and written so far on behalf of this process. */
  get usage(): { readonly prompt_tokens: number; readonly completion_tokens: number } {
    return this.#usage
  }

  /** As `Serving.generate`. Until a worker's first event comes, another one may be asked instead. */
  async *generate(
    model: ResolvedModel,
    generation: Generation,
    signal: AbortSignal,
  ): AsyncGenerator<InferEvent, void, undefined> {
    this.#taken += generation.n
    try {
      const question = { path: GENERATE_PATH, body: { generation } }
      for await (const event of this.#relay<InferEvent>(model, question, signal)) {
        if (event.type === 'prompt') this.#usage.prompt_tokens += event.prompt_tokens
        if (event.type === 'finish') this.#usage.completion_tokens += event.completion_tokens
        yield event
      }
    } finally {
      this.#taken -= generation.n
    }
  }

  /** As `Serving.encode`. */
  async encode(model: ResolvedModel, encoding: Encoding, signal: AbortSignal): Promise<Encodings> {
    this.#taken++
    try {
      const question = { path: ENCODE_PATH, body: { encoding } }
      for await (const encodings of this.#relay<Encodings>(model, question, signal)) {
        this.#usage.prompt_tokens += encodings.prompt_tokens
        return encodings
      }
      throw new Error('A worker ended without a result.')
    } finally {
      this.#taken--
    }
  }

  async *#relay<Event>(
    model: ResolvedModel,
    question: Question,
    signal: AbortSignal,
  ): AsyncGenerator<Event, void, undefined> {
    let refusal: ApiError | undefined
    for (const worker of rankWorkers(await this.#workers(), model)) {
      const events = this.#ask<Event>(worker, model, question, signal)
      try {
        const first = await events.next()
        if (first.done) return
        yield first.value
      } catch (error) {
        if (signal.aborted) throw error
        if (error instanceof WorkerAway)
          this.#options.log.warn({ worker: worker.id, err: error }, 'a worker cannot be reached')
        else if (error instanceof ApiError && (error.status === 503 || error.status === 429))
          refusal = error
        else throw error
        continue
      }
      try {
        yield* events
      } catch (error) {
        if (!(error instanceof WorkerAway) || signal.aborted) throw error
        this.#options.log.warn({ worker: worker.id, err: error }, 'a worker went away')
        throw unavailable('Inference was interrupted. Please retry.')
      }
      return
    }
    throw refusal ?? unavailable('No worker is there to answer now. Please retry shortly.', 5)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
  }

  #workers(): Promise<WorkerRecord[]> {
    const now = performance.now()
    if (!this.#listed || now - this.#listed.at > LIST_MS) {
      const workers = listWorkers(this.#options.db, this.#options.alive_seconds)
      this.#listed = { at: now, workers }
      workers.catch(() => {
        this.#listed = undefined
      })
    }
    return this.#listed.workers
  }

  async *#ask<Event>(
    { url, token }: WorkerRecord,
    model: ResolvedModel,
    question: Question,
    signal: AbortSignal,
  ): AsyncGenerator<Event, void, undefined> {
    const asked = { project_id: model.project_id, model: model.id, ...question.body }
    const body = JSON.stringify(asked)
    const sent = request(new URL(question.path, url), {
      agent: this.#agent,
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
      },
      timeout: this.#options.silence_ms,
      signal,
    })
    sent.once('timeout', () => sent.destroy(new WorkerAway('The worker is silent.')))
    try {
      const reply = await answered(sent, body)
      // Another process has that address now, or the worker was started anew.
      if (reply.statusCode !== 200) throw new WorkerAway(`It answered with ${reply.statusCode}.`)
      for await (const line of linesOf(reply)) {
        if (line === '') continue
        const said = JSON.parse(line) as RelayedLine<Event>
        if ('end' in said) return
        if ('error' in said) throw new ApiError(said.error.status, said.error.message, said.error)
        yield said.event
      }
      throw new WorkerAway('Its answer ended in the middle.')
    } catch (error) {
      if (error instanceof ApiError || error instanceof WorkerAway || signal.aborted) throw error
      throw new WorkerAway('The connection failed.', { cause: error })
    } finally {
      // A reader that leaves early ends the work at the other side too; after the end this does nothing.
      sent.destroy()
    }
  }
}

/** Those that have the adapter first, then those that have its base, and the least busy of them. */
export function rankWorkers(
  workers: readonly WorkerRecord[],
  { root, adapter }: Pick<ResolvedModel, 'root' | 'adapter'>,
): WorkerRecord[] {
  const distance = ({ resident }: WorkerRecord) =>
    resident.includes(adapter?.sha256 ?? root) ? 0 : resident.includes(root) ? 1 : 2
  return workers.toSorted((a, b) => distance(a) - distance(b) || a.taken - b.taken)
}

function answered(sent: ClientRequest, body: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    sent.once('response', resolve)
    // Also after the response: what breaks then ends the reading of it too.
    sent.on('error', reject)
    sent.end(body)
  })
}

async function* linesOf(reply: IncomingMessage): AsyncGenerator<string> {
  let rest = ''
  reply.setEncoding('utf8')
  for await (const chunk of reply) {
    const lines = `${rest}${chunk}`.split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
}
