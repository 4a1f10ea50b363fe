// A thread is asked, and what it throws is told apart from our own errors.

import type { Thread } from '../../engine/runtime/thread.ts'
import { ApiError } from '../../errors.ts'

export interface AskOptions {
  signal: AbortSignal
  /** What is thrown in place of an error that is neither one for a client nor an abort. */
  fault: (message: string, cause: unknown) => Error
}

/** What the thread yields. An error of who takes it is left as it is. */
export async function* askThread<Request, Event>(
  thread: Thread<Request, Event>,
  request: Request,
  { signal, fault }: AskOptions,
): AsyncGenerator<Event, void, undefined> {
  const events = thread.run(request, signal)
  try {
    while (true) {
      let next: IteratorResult<Event, void>
      try {
        next = await events.next()
      } catch (cause) {
        if (cause instanceof ApiError || signal.aborted) throw cause
        throw fault(cause instanceof Error ? cause.message : String(cause), cause)
      }
      if (next.done) return
      yield next.value
    }
  } finally {
    await events.return()
  }
}
