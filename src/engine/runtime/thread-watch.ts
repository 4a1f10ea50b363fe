// How long a thread may take, by what it computed itself: of a machine that stands still or is busy elsewhere, it is not to blame.

import { readFileSync, readlinkSync } from 'node:fs'

/** Linux counts a thread's time in hundredths of a second. */
const CLOCK_TICK = 10

/** Where the kernel tells of the thread that calls; undefined where it tells nothing. */
export function placeOfThread(): string | undefined {
  try {
    return `/proc/${readlinkSync('/proc/thread-self')}/stat`
  } catch {
    return undefined
  }
}

/** Milliseconds that the thread at this place has computed; undefined where nobody tells. */
function computedBy(place: string | undefined): number | undefined {
  if (place === undefined) return undefined
  try {
    const stat = readFileSync(place, 'utf8')
    // proc(5): utime and stime are fields 14 and 15; the name, field 2, ends with the last bracket.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return CLOCK_TICK * (Number(fields[11]) + Number(fields[12]))
  } catch {
    return undefined
  }
}

/** Milliseconds that a thread may compute, and that may go by. */
export interface Limits {
  readonly computed: number
  readonly passed: number
}

/**
 * Watches one thread from now on. Who waits looks every `LOOK` milliseconds, and between two looks no more than that counts
 * as passed: a process that was stopped has lost nothing. Where the kernel tells nothing, all that passed counts as computed.
 */
export class ThreadWatch {
  readonly #place: string | undefined
  readonly #limits: Limits
  readonly #began: number | undefined
  #looked = performance.now()
  #passed = 0

  constructor(place: string | undefined, limits: Limits) {
    this.#place = place
    this.#limits = limits
    this.#began = computedBy(place)
  }

  /** Which limit is over, if any. */
  look(): keyof Limits | undefined {
    const now = performance.now()
    this.#passed += Math.min(now - this.#looked, LOOK)
    this.#looked = now
    const all = computedBy(this.#place)
    const own = all === undefined || this.#began === undefined ? this.#passed : all - this.#began
    if (own >= this.#limits.computed) return 'computed'
    return this.#passed >= this.#limits.passed ? 'passed' : undefined
  }
}

/** Milliseconds between two looks. */
export const LOOK = 100
