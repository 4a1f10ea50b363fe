// Ends synchronous code that runs too long: the engine stops the stack, wherever it is in it.

import { createContext, Script } from 'node:vm'

const context = createContext({ f: undefined as (() => unknown) | undefined })
const call = new Script('f()')

/** Thrown instead of a result. */
export class TimeLimit extends Error {}

/** What `f` returns; throws TimeLimit after so many milliseconds, and what `f` itself throws. Not to be nested. */
export function withTimeLimit<T>(milliseconds: number, f: () => T): T {
  context.f = f
  try {
    return call.runInContext(context, { timeout: milliseconds }) as T
  } catch (error) {
    // The error's class is that of the engine; its code tells it from what `f` throws.
    const code = (error as { code?: unknown } | null)?.code
    if (code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    throw new TimeLimit(`stopped after ${milliseconds} ms`, { cause: error })
  } finally {
    context.f = undefined
  }
}
