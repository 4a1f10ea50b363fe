// Typed worker threads: spawn() here, serve() there. Events flow back one by one; errors and aborts
// cross the boundary; a thread asks for its turn on the device before it computes.

import {
  parentPort,
  type ResourceLimits,
  Worker,
  type WorkerOptions,
  workerData,
} from 'node:worker_threads'
import { ApiError } from '../../errors.ts'

/** Leave to compute on the device; disposing it gives the device back. */
export interface Turn extends Disposable {}

/** What a turn is asked for with. */
export interface TurnWish {
  /** Of several devices the one at this place; absent: 0. */
  readonly place?: number
  /** Whether somebody waits for the first token of an answer. */
  readonly pressing?: boolean
}

/** Waits until the device is free for this thread. */
export type TakeTurn = (wish?: TurnWish) => Promise<Turn>

export interface Thread<Request, Event> extends AsyncDisposable {
  /** The worker is gone: every run fails, those under way too. */
  readonly closed: boolean
  /** Runs one request; several may run at once. Aborting `signal` reaches the handler's own signal. */
  run(request: Request, signal?: AbortSignal): AsyncGenerator<Event, void, undefined>
  /**
   * Ends the thread whatever it does, and fails its runs. Only for a thread without native code under way: with it
   * the whole process could end.
   */
  kill(): Promise<void>
}

/** What a handler gets besides its request. */
export interface HandlerContext {
  readonly signal: AbortSignal
  readonly turn: TakeTurn
}

export type Handler<Request, Event> = (
  request: Request,
  context: HandlerContext,
) => AsyncIterable<Event>

type ToThread =
  | { type: 'run'; id: number; request: unknown }
  | { type: 'taken'; id: number }
  | { type: 'abort'; id: number; reason: unknown }
  | { type: 'close' }
  | { type: 'turn'; turn: number }

type FromThread =
  | { type: 'event'; id: number; event: unknown }
  | { type: 'end'; id: number }
  | { type: 'error'; id: number; error: SentError }
  | { type: 'turn'; turn: number; wish: TurnWish }
  | { type: 'turn_end'; turn: number }

interface SentError {
  message: string
  stack: string | undefined
  name: string
  api?: { status: number; type: string; param: string | null; code: string | null }
}

/**
 * Starts the thread whose entry file calls serve(). `entry` names the `.ts` file; in a build the `.js` beside it runs.
 * `takeTurn` decides who holds the device; without it every turn is granted at once. `data` is what `threadData()` gives.
 * `resourceLimits` bound the thread's own memory: one that needs more ends, and its runs fail.
 */
export function spawn<Request, Event>(
  entry: URL,
  takeTurn: TakeTurn = async () => ({ [Symbol.dispose]() {} }),
  data?: unknown,
  resourceLimits?: ResourceLimits,
): Thread<Request, Event> {
  const worker = startWorker(entry, { workerData: data, ...(resourceLimits && { resourceLimits }) })
  const exited = new Promise<void>((done) => worker.once('exit', () => done()))
  const runs = new Map<number, Inbox<Event>>()
  const turns = new Map<number, Turn>()
  let lastId = 0
  let gone: Error | undefined

  const send = (message: ToThread) => worker.postMessage(message)

  worker.on('message', (message: FromThread) => {
    switch (message.type) {
      case 'event':
        runs.get(message.id)?.push({ event: message.event as Event })
        break
      case 'end':
        runs.get(message.id)?.push('end')
        break
      case 'error':
        runs.get(message.id)?.push({ error: receiveError(message.error) })
        break
      case 'turn':
        void takeTurn(message.wish).then((turn) => {
          if (gone) return turn[Symbol.dispose]()
          turns.set(message.turn, turn)
          send({ type: 'turn', turn: message.turn })
        })
        break
      case 'turn_end':
        turns.get(message.turn)?.[Symbol.dispose]()
        turns.delete(message.turn)
        break
      default:
        message satisfies never
    }
  })

  const end = (error: Error) => {
    gone ??= error
    for (const inbox of runs.values()) inbox.push({ error: gone })
    for (const turn of turns.values()) turn[Symbol.dispose]()
    turns.clear()
  }
  worker.on('error', (cause) => end(new Error(`The worker thread failed: ${cause}`, { cause })))
  worker.on('exit', (code) => end(new Error(`The worker thread ended with code ${code}.`)))

  const thread: Thread<Request, Event> = {
    get closed() {
      return gone !== undefined
    },
    async *run(request, signal) {
      signal?.throwIfAborted()
      if (gone) throw gone
      const id = ++lastId
      const inbox = new Inbox<Event>()
      runs.set(id, inbox)
      const abort = () => send({ type: 'abort', id, reason: signal?.reason?.message ?? 'aborted' })
      signal?.addEventListener('abort', abort, { once: true })
      let ended = false
      try {
        send({ type: 'run', id, request })
        while (true) {
          const item = await inbox.next()
          if (item === 'end') {
            ended = true
            return
          }
          if ('error' in item) {
            ended = true
            throw item.error
          }
          yield item.event
          send({ type: 'taken', id })
        }
      } finally {
        signal?.removeEventListener('abort', abort)
        runs.delete(id)
        if (!ended && !gone) send({ type: 'abort', id, reason: 'the reader went away' })
      }
    },
    async kill() {
      end(new Error('The worker thread was ended.'))
      await worker.terminate()
      spawned.delete(thread)
    },
    async [Symbol.asyncDispose]() {
      gone ??= new Error('The worker thread was closed.')
      send({ type: 'close' })
      await exited
      spawned.delete(thread)
    },
  }
  spawned.add(thread)
  return thread
}

/** The threads of this thread, which must be gone before it goes. */
const spawned = new Set<AsyncDisposable>()

/** What the thread was spawned with. */
export const threadData = (): unknown => workerData

/**
 * The thread's side: answers every request with the events its handler yields.
 * A handler runs on at most `ahead` events before the reader took them, so a slow reader slows it down.
 */
export function serve<Request, Event>(handler: Handler<Request, Event>, { ahead = 1 } = {}): void {
  const port = parentPort
  if (!port) throw new Error('serve() runs inside a worker thread only')
  const send = (message: FromThread) => port.postMessage(message)
  const aborts = new Map<number, AbortController>()
  const readers = new Map<number, { untaken: number; wake: () => void }>()
  const waiting = new Map<number, (turn: Turn) => void>()
  let lastTurn = 0

  const turn: TakeTurn = (wish = {}) =>
    new Promise((resolve) => {
      const id = ++lastTurn
      waiting.set(id, resolve)
      send({ type: 'turn', turn: id, wish })
    })

  async function run(id: number, request: Request) {
    const abort = new AbortController()
    const reader = { untaken: 0, wake: () => {} }
    aborts.set(id, abort)
    readers.set(id, reader)
    try {
      for await (const event of handler(request, { signal: abort.signal, turn })) {
        reader.untaken++
        send({ type: 'event', id, event })
        while (reader.untaken > ahead && !abort.signal.aborted)
          await new Promise<void>((resolve) => {
            reader.wake = resolve
          })
      }
      send({ type: 'end', id })
    } catch (error) {
      send({ type: 'error', id, error: sendError(error) })
    } finally {
      aborts.delete(id)
      readers.delete(id)
    }
  }

  port.on('message', (message: ToThread) => {
    switch (message.type) {
      case 'run':
        void run(message.id, message.request as Request)
        break
      case 'taken': {
        const reader = readers.get(message.id)
        if (reader) {
          reader.untaken--
          reader.wake()
        }
        break
      }
      case 'abort': {
        aborts.get(message.id)?.abort(new Error(String(message.reason)))
        readers.get(message.id)?.wake()
        break
      }
      case 'turn': {
        const id = message.turn
        waiting.get(id)?.({ [Symbol.dispose]: () => send({ type: 'turn_end', turn: id }) })
        waiting.delete(id)
        break
      }
      case 'close':
        void close()
        break
      default:
        message satisfies never
    }
  })
}

/**
 * Ends this thread, between two calls of native code: ended from outside in the midst of one, it would take the whole
 * process down, for the runtime throws what nobody catches.
 */
async function close(): Promise<void> {
  await Promise.all([...spawned].map((thread) => thread[Symbol.asyncDispose]()))
  process.exit()
}

type Item<Event> = { event: Event } | { error: unknown } | 'end'

class Inbox<Event> {
  readonly #items: Item<Event>[] = []
  #wake: (() => void) | undefined

  push(item: Item<Event>) {
    this.#items.push(item)
    this.#wake?.()
  }

  async next(): Promise<Item<Event>> {
    while (true) {
      const item = this.#items.shift()
      if (item !== undefined) return item
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}

function startWorker(entry: URL, options: WorkerOptions): Worker {
  if (import.meta.url.endsWith('.js'))
    return new Worker(new URL(entry.href.replace(/\.ts$/, '.js')), options)
  // `--import tsx` registers nothing in a worker of Node 20, so the worker registers it by itself.
  const tsx = import.meta.resolve('tsx/esm/api')
  const start = `import(${JSON.stringify(tsx)}).then(({ register }) => {
    register()
    return import(${JSON.stringify(entry.href)})
  })`
  return new Worker(start, { eval: true, ...options })
}

function sendError(error: unknown): SentError {
  if (!(error instanceof Error)) return { message: String(error), stack: undefined, name: 'Error' }
  const { message, stack, name } = error
  if (!(error instanceof ApiError)) return { message, stack, name }
  const { status, type, param, code } = error
  return { message, stack, name, api: { status, type, param, code } }
}

function receiveError({ message, stack, name, api }: SentError): Error {
  const error: Error = api
    ? new ApiError(api.status, message, api)
    : Object.assign(new Error(message), { name })
  if (stack !== undefined) error.stack = stack
  return error
}
