// How long a request may take: what is not answered by then is told so, and its place given to others.

import { ApiError } from '../../errors.ts'

export interface Deadline extends Disposable {
  /** Aborts at the deadline. */
  readonly signal: AbortSignal
  /** 504 once it has passed. */
  check(): void
}

/** So many milliseconds from now; without them it never comes. */
export function deadlineIn(milliseconds: number | undefined): Deadline {
  const late = new AbortController()
  const timer =
    milliseconds === undefined
      ? undefined
      : setTimeout(() => late.abort(timedOut(milliseconds)), milliseconds)
  return {
    signal: late.signal,
    check: () => late.signal.throwIfAborted(),
    [Symbol.dispose]: () => clearTimeout(timer),
  }
}

/** Clients need not try again by themselves: it would take as long. */
const timedOut = (milliseconds: number) =>
  new ApiError(
    504,
    `The request was not answered within ${milliseconds / 1000} seconds. Ask for fewer tokens, or for a stream.`,
    { type: 'timeout', code: 'request_timeout', headers: { 'x-should-retry': 'false' } },
  )
