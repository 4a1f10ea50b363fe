// The devices of this process, and which work holds which of them. Pure bookkeeping.

import type { TakeTurn } from '../../engine/runtime/thread.ts'
import { type Claimant, Device } from './devices.ts'

/** Some devices, held by one piece of work. */
export interface HeldDevices extends Disposable {
  /** For its thread: turns on them, by their place among those held. */
  readonly takeTurn: TakeTurn
}

export class DevicePool {
  readonly #devices: readonly Device[]
  readonly #held = new Set<Device>()

  /** `share` is what training gets of a device's time while answers want all of it. */
  constructor(count: number, share = 0.25) {
    this.#devices = Array.from(
      { length: count },
      () => new Device({ share, linger: 10, patience: 1 }),
    )
  }

  get count(): number {
    return this.#devices.length
  }

  /** Where answers are computed; training takes it last. */
  get serving(): Device {
    return this.#devices[0]!
  }

  /** Turns of all devices together, and how many wait. */
  get usage(): Device['usage'] {
    const sum = (claimant: Claimant) =>
      this.#devices
        .map(({ usage }) => usage[claimant])
        .reduce((a, b) => ({
          turns: a.turns + b.turns,
          ms: a.ms + b.ms,
          waiting: a.waiting + b.waiting,
        }))
    return { serving: sum('serving'), training: sum('training') }
  }

  /** Takes so many free devices for training; throws where there are fewer. */
  take(count: number): HeldDevices {
    const free = this.#devices.filter((device) => !this.#held.has(device))
    if (free.length < count)
      throw new Error(`${count} devices are wanted, and ${free.length} are free.`)
    const taken = free.slice(-count).reverse()
    for (const device of taken) this.#held.add(device)
    const turns = taken.map((device) => device.turns('training'))
    return {
      takeTurn(wish = {}) {
        const { place = 0 } = wish
        const turn = turns[place]
        if (!turn) throw new Error(`Place ${place} of ${count} devices was asked for.`)
        return turn(wish)
      },
      [Symbol.dispose]: () => {
        for (const device of taken) this.#held.delete(device)
      },
    }
  }
}
