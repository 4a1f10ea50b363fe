// What a kind of work supplies; claim, heartbeat, cancel, retry and resume are the worker's.

import type { Lease } from '../db/work.ts'

/** How a run came to its end. */
export type Outcome =
  /** It has ended its work itself, in the transaction that wrote its result. */
  | { type: 'ended' }
  /** It was asked to stop and has committed what it had. */
  | { type: 'stopped' }
  /** There is nothing to do for it before so many seconds. */
  | { type: 'waits'; seconds: number }
  /** It was asked to pause, and committed what it had and the pause at once. */
  | { type: 'paused' }

/** Reason of the abort when the work is to be paused. */
export class WorkPauses extends Error {
  override readonly name = 'WorkPauses'
}

export interface WorkKind {
  /** As in `work.kind`: `fine_tuning.job`. */
  readonly kind: string

  /** It looks now and then and works seldom: its claims are not worth a line of the log. */
  readonly quiet?: boolean

  /**
   * Works from the last committed state on. `signal` aborts when the worker stops (commit, then return
   * `stopped`), with `WorkPauses` when the work is to rest (commit, `pauseWork`, then return `paused`), or when the lease is lost, with `LeaseLost` as its reason (nothing can be written any more).
   * What it throws counts as a fault: tried again, and after the last try `fail` is called.
   */
  run(lease: Lease, signal: AbortSignal): Promise<Outcome>

  /** Ends the work as failed, for it cannot be brought to an end. */
  fail(lease: Lease, cause: unknown): Promise<void>
}
