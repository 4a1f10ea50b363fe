// Waits out what passes: a database that restarts, a store that is away for a minute.

import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError } from '../../errors.ts'
import { LeaseLost } from '../db/work.ts'
import { ObjectCorrupt, ObjectMissing } from '../storage/object-store.ts'

/** No further try could end otherwise. */
export class Hopeless extends Error {
  override readonly name = 'Hopeless'
}

/** Tries again, ever more slowly, until it works or `seconds` are over. What cannot pass is thrown at once. */
export async function patiently<T>(attempt: () => Promise<T>, seconds = 180): Promise<T> {
  const end = Date.now() + seconds * 1000
  for (let pause = 100; ; pause = Math.min(pause * 2, 5000)) {
    try {
      return await attempt()
    } catch (error) {
      if (!mayPass(error) || Date.now() + pause > end) throw error
      await sleep(pause)
    }
  }
}

/** Connection (08), transaction (40) and resource (53) errors of Postgres, operator intervention (57), system (58). */
const PASSING = ['08', '40', '53', '57', '58']

function mayPass(error: unknown): boolean {
  if (error instanceof LeaseLost || error instanceof ApiError || error instanceof Hopeless)
    return false
  if (error instanceof TypeError || error instanceof RangeError) return false
  if (error instanceof ObjectMissing || error instanceof ObjectCorrupt) return false
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  // A SQLSTATE has five characters; the codes of the operating system begin with E and are longer or words.
  return /^[0-9A-Z]{5}$/.test(code) && /^\d/.test(code) ? PASSING.includes(code.slice(0, 2)) : true
}
