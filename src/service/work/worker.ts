// Claims work and sees it through: heartbeat, hints, retries, stop. Knows nothing of what the work is.

import { ApiError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { type Pool, transaction } from '../db/pool.ts'
import {
  claimWork,
  expireLease,
  faultsOf,
  type Lease,
  LeaseLost,
  leasesOf,
  type Room,
  releaseLease,
  renewLease,
  WORK_CHANNEL,
} from '../db/work.ts'
import { listen } from './hints.ts'
import { type Outcome, type WorkKind, WorkPauses } from './kind.ts'
import { isProvablyDead, type Owner, thisProcess } from './owner.ts'
import { Hopeless } from './patience.ts'

export interface WorkerOptions {
  db: Pool
  log: Logger
  kinds: readonly WorkKind[]
  /** A claim is lost this long after its last heartbeat. */
  lease_seconds?: number
  /** How often the table is asked when no hint comes. */
  poll_seconds?: number
  /** What it works with: as many pieces of work at once as there are devices; absent: one. */
  devices?: Omit<Room, 'free'>
}

/** Takes one piece of work after the other, several at once where it has the devices, until it is stopped. */
export interface Worker extends AsyncDisposable {
  /** Stops claiming, has the running work commit its state, gives it back. */
  stop(): Promise<void>
}

/** Errors of the work itself before it is given up. */
const MAX_FAULTS = 3
/** Processes that died over it, with nothing committed in between, before it is given up. */
const MAX_ATTEMPTS = 25
const FAULT_DELAY_SECONDS = 1

/** Reason of the abort when the worker stops. */
export class WorkerStops extends Error {
  override readonly name = 'WorkerStops'
}

/** Starts claiming. */
export function startWorker(options: WorkerOptions): Worker {
  const worker = new ClaimingWorker(options)
  const ended = worker.loop()
  const stop = () => {
    worker.stop()
    return ended
  }
  return { stop, [Symbol.asyncDispose]: stop }
}

class ClaimingWorker {
  readonly #db: Pool
  readonly #log: Logger
  readonly #kinds: ReadonlyMap<string, WorkKind>
  readonly #lease_seconds: number
  readonly #poll_seconds: number
  readonly #stopping = new AbortController()
  #wake = () => {}
  #hinted = false
  readonly #devices: Omit<Room, 'free'>
  readonly #running = new Map<string, { lease: Lease; check: () => void }>()
  readonly #work = new Set<Promise<void>>()
  #free: number

  constructor({
    db,
    log,
    kinds,
    lease_seconds = 30,
    poll_seconds = 2,
    devices = { device: 'cpu', devices: 1 },
  }: WorkerOptions) {
    this.#db = db
    this.#log = log
    this.#kinds = new Map(kinds.map((kind) => [kind.kind, kind]))
    this.#lease_seconds = lease_seconds
    this.#poll_seconds = poll_seconds
    this.#devices = devices
    this.#free = devices.devices
  }

  stop() {
    this.#stopping.abort(new WorkerStops('The worker stops.'))
    this.#wake()
  }

  async loop(): Promise<void> {
    const self = await thisProcess()
    await using _hints = listen(this.#db, WORK_CHANNEL, {
      log: this.#log,
      heard: (id) => {
        this.#running.get(id)?.check()
        this.#hinted = true
        this.#wake()
      },
    })
    while (!this.#stopping.signal.aborted) {
      this.#hinted = false
      const lease = this.#free > 0 ? await this.#claim(self) : undefined
      if (lease) this.#start(lease)
      else await this.#sleep()
    }
    await Promise.all(this.#work)
  }

  /** Begins, and looks for more work when it has ended. */
  #start(lease: Lease): void {
    this.#free -= lease.devices
    const working = this.#workOn(lease).finally(() => {
      this.#work.delete(working)
      this.#free += lease.devices
      this.#hinted = true
      this.#wake()
    })
    this.#work.add(working)
  }

  async #claim(self: Owner): Promise<Lease | undefined> {
    try {
      if (self.neighbours !== undefined)
        for (const held of await leasesOf(this.#db, self.neighbours))
          if (await isProvablyDead(held.lease_owner, self)) {
            this.#log.info({ work: held.id }, 'lease of a dead process ended')
            await expireLease(this.#db, held)
          }
      const kinds = [...this.#kinds.keys()]
      const room = { ...this.#devices, free: this.#free }
      return await claimWork(this.#db, self.name, kinds, this.#lease_seconds, room)
    } catch (err) {
      this.#log.error({ err }, 'work cannot be claimed')
      return undefined
    }
  }

  async #workOn(lease: Lease): Promise<void> {
    const kind = this.#kinds.get(lease.kind)
    if (!kind) throw new Error(`Work of kind ${lease.kind} was claimed, which nobody here does.`)
    const level = kind.quiet ? 'debug' : 'info'
    this.#log[level]({ work: lease.id, attempt: lease.attempt }, 'work claimed')
    await using held = this.#keep(lease)
    const signal = AbortSignal.any([held.lost, held.pauses, this.#stopping.signal])
    try {
      if (lease.attempt > MAX_ATTEMPTS)
        throw new Hopeless(`${lease.attempt - 1} processes ended while they worked on it.`)
      await this.#settle(lease, await kind.run(lease, signal))
    } catch (cause) {
      await this.#mishap(kind, lease, cause)
    }
  }

  async #settle(lease: Lease, outcome: Outcome): Promise<void> {
    if (outcome.type === 'ended') return
    if (outcome.type === 'paused') {
      this.#log.info({ work: lease.id }, 'work paused')
      return
    }
    if (outcome.type === 'waits') {
      const after = { fault: false, delay_seconds: outcome.seconds }
      return transaction(this.#db, (tx) => releaseLease(tx, lease, after))
    }
    await transaction(this.#db, (tx) => releaseLease(tx, lease))
    this.#log.info({ work: lease.id }, 'work given back')
  }

  async #mishap(kind: WorkKind, lease: Lease, cause: unknown): Promise<void> {
    if (cause instanceof LeaseLost) {
      this.#log.info({ work: lease.id }, 'work was cancelled or taken over')
      return
    }
    try {
      const hopeless = cause instanceof ApiError || cause instanceof Hopeless
      if (hopeless || (await faultsOf(this.#db, lease)) + 1 >= MAX_FAULTS) {
        this.#log.error({ work: lease.id, err: cause }, 'work failed')
        await kind.fail(lease, cause)
        return
      }
      this.#log.warn({ work: lease.id, err: cause }, 'work met an error and is tried again')
      await transaction(this.#db, (tx) =>
        releaseLease(tx, lease, { fault: true, delay_seconds: FAULT_DELAY_SECONDS }),
      )
    } catch (err) {
      if (err instanceof LeaseLost) return
      // The database is away: the lease expires, and whoever claims it next goes on.
      this.#log.error({ work: lease.id, err }, 'the end of a run cannot be written')
    }
  }

  /**
   * The heartbeat. `lost` aborts as soon as the table says that the lease is not ours, `pauses` when it says that the
   * work is to rest.
   */
  #keep(lease: Lease): { lost: AbortSignal; pauses: AbortSignal } & AsyncDisposable {
    const lost = new AbortController()
    const pauses = new AbortController()
    const hear = ({ pause_requested }: Pick<Lease, 'pause_requested'>) => {
      if (pause_requested) pauses.abort(new WorkPauses('The work pauses.'))
    }
    const beat = async () => {
      try {
        const renewed = await renewLease(this.#db, lease, this.#lease_seconds)
        if (renewed) hear(renewed)
        else lost.abort(new LeaseLost(lease.id))
      } catch (err) {
        this.#log.warn({ work: lease.id, err }, 'heartbeat failed')
      }
    }
    let beating = Promise.resolve()
    const check = () => {
      beating = beating.then(beat)
    }
    const timer = setInterval(check, (this.#lease_seconds * 1000) / 3)
    this.#running.set(lease.id, { lease, check })
    hear(lease)
    return {
      lost: lost.signal,
      pauses: pauses.signal,
      [Symbol.asyncDispose]: async () => {
        clearInterval(timer)
        this.#running.delete(lease.id)
        await beating
      },
    }
  }

  #sleep(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#poll_seconds * 1000)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
      // What was heard while the table was asked must not wait for the next poll.
      if (this.#hinted || this.#stopping.signal.aborted) this.#wake()
    })
  }
}
