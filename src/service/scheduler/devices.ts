// Who computes on a device now: pure bookkeeping, and the small wrapper that gives threads their turns.
// Training and serving take turns at step boundaries, for two sessions on the same cores starve each other.

import type { TakeTurn, Turn } from '../../engine/runtime/thread.ts'

export type Claimant = 'serving' | 'training'

export interface Policy {
  /**
   * The part of the device's time, 0 … 1, that training gets while both want all of it: serving goes on, turn after turn,
   * for (1 − share) / share times as long as training's last turn took, then training has one turn. So a slow step costs
   * serving no more of its part than a quick one.
   */
  share: number
  /**
   * How long the device is kept for serving after its turn. Between two decoded tokens serving asks
   * anew; without this a training step would slip in between, and it is much longer than a token.
   */
  linger: number
  /**
   * How long training is put off while somebody waits for a first token, in times of its last turn. What it waits beyond its
   * time is taken off serving's next series, so that it has its share all the same.
   */
  patience: number
}

/** A device as plain data; times are milliseconds of one monotonic clock. */
export interface DeviceState {
  readonly holder: Claimant | undefined
  /** Tickets in the order they came. */
  readonly waiting: Readonly<Record<Claimant, readonly number[]>>
  /** Whether serving's newest turn, had or asked for, is one for which somebody waits for a first token. */
  readonly pressing: boolean
  /** Start of serving's unbroken series of turns. */
  readonly burst_since: number | undefined
  readonly serving_ended: number | undefined
  readonly training_began: number
  /** How long training's last turn took. */
  readonly training_took: number
  /** How long training's last turn was put off. */
  readonly owed: number
}

export type Decision =
  | { type: 'grant'; claimant: Claimant; ticket: number }
  /** Nothing to grant before that time, unless somebody asks or releases. */
  | { type: 'wait'; until: number }
  | { type: 'idle' }

export const freeDevice: DeviceState = {
  holder: undefined,
  waiting: { serving: [], training: [] },
  pressing: false,
  burst_since: undefined,
  serving_ended: undefined,
  training_began: 0,
  training_took: 0,
  owed: 0,
}

export const ask = (
  state: DeviceState,
  claimant: Claimant,
  ticket: number,
  pressing = false,
): DeviceState => ({
  ...state,
  waiting: { ...state.waiting, [claimant]: [...state.waiting[claimant], ticket] },
  pressing: claimant === 'serving' ? pressing : state.pressing,
})

export const release = (state: DeviceState, now: number): DeviceState => ({
  ...state,
  holder: undefined,
  serving_ended: state.holder === 'serving' ? now : state.serving_ended,
  training_took: state.holder === 'training' ? now - state.training_began : state.training_took,
})

/** Whose turn it is. Serving goes first, until training, which waits, has its share to come. */
export function decide(state: DeviceState, now: number, policy: Policy): Decision {
  if (state.holder) return { type: 'idle' }
  const serving = state.waiting.serving[0]
  const training = state.waiting.training[0]
  if (training === undefined)
    return serving === undefined
      ? { type: 'idle' }
      : { type: 'grant', claimant: 'serving', ticket: serving }

  const due = dueOf(state, now, policy)
  const put_off = state.pressing ? policy.patience * state.training_took : 0
  const burst_ends = due === undefined ? undefined : due + put_off
  if (burst_ends !== undefined && now >= burst_ends)
    return { type: 'grant', claimant: 'training', ticket: training }
  if (serving !== undefined) return { type: 'grant', claimant: 'serving', ticket: serving }
  if (burst_ends !== undefined)
    return {
      type: 'wait',
      until: Math.min((state.serving_ended ?? now) + policy.linger, burst_ends),
    }
  return { type: 'grant', claimant: 'training', ticket: training }
}

export function grant(
  state: DeviceState,
  decision: { claimant: Claimant; ticket: number },
  now: number,
  policy: Policy,
): DeviceState {
  const { claimant, ticket } = decision
  const waiting = {
    ...state.waiting,
    [claimant]: state.waiting[claimant].filter((waiting) => waiting !== ticket),
  }
  if (claimant === 'training')
    return {
      ...state,
      holder: claimant,
      waiting,
      burst_since: undefined,
      serving_ended: undefined,
      training_began: now,
      owed: Math.max(0, now - (dueOf(state, now, policy) ?? now)),
    }
  const burst_since = burstGoesOn(state, now, policy) ? state.burst_since : now
  return { ...state, holder: claimant, waiting, burst_since }
}

/** When training's share is due; undefined outside of a series of serving. */
const dueOf = (state: DeviceState, now: number, policy: Policy): number | undefined =>
  burstGoesOn(state, now, policy)
    ? state.burst_since! + (state.training_took * (1 - policy.share)) / policy.share - state.owed
    : undefined

// A pause longer than the linger ends the series: the next one has its whole time again.
const burstGoesOn = ({ burst_since, serving_ended }: DeviceState, now: number, policy: Policy) =>
  burst_since !== undefined && serving_ended !== undefined && now - serving_ended < policy.linger

/** One device and everybody who wants it. */
export class Device {
  readonly #policy: Policy
  readonly #resolve = new Map<number, (turn: Turn) => void>()
  #state = freeDevice
  readonly #usage = { serving: { turns: 0, ms: 0 }, training: { turns: 0, ms: 0 } }
  #last = 0
  #timer: NodeJS.Timeout | undefined

  constructor(policy: Policy = { share: 0.25, linger: 10, patience: 1 }) {
    this.#policy = policy
  }

  /** What a thread of this kind is spawned with. */
  turns(claimant: Claimant): TakeTurn {
    return ({ pressing } = {}) =>
      new Promise((resolve) => {
        const ticket = ++this.#last
        this.#resolve.set(ticket, resolve)
        this.#state = ask(this.#state, claimant, ticket, pressing)
        this.#advance()
      })
  }

  /** Turns so far and their time, and how many wait. */
  get usage(): Record<Claimant, { turns: number; ms: number; waiting: number }> {
    const of = (claimant: Claimant) => ({
      ...this.#usage[claimant],
      waiting: this.#state.waiting[claimant].length,
    })
    return { serving: of('serving'), training: of('training') }
  }

  #advance() {
    clearTimeout(this.#timer)
    const now = performance.now()
    const decision = decide(this.#state, now, this.#policy)
    switch (decision.type) {
      case 'idle':
        break
      case 'wait':
        this.#timer = setTimeout(() => this.#advance(), Math.ceil(decision.until - now))
        break
      case 'grant': {
        this.#state = grant(this.#state, decision, now, this.#policy)
        this.#resolve.get(decision.ticket)?.(this.#turn(decision.claimant, now))
        this.#resolve.delete(decision.ticket)
        break
      }
      default:
        decision satisfies never
    }
  }

  #turn(claimant: Claimant, since: number): Turn {
    let held = true
    this.#usage[claimant].turns++
    return {
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        const now = performance.now()
        this.#usage[claimant].ms += now - since
        this.#state = release(this.#state, now)
        this.#advance()
      },
    }
  }
}
