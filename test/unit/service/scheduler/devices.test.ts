import { expect, test } from 'vitest'
import {
  ask,
  type Claimant,
  Device,
  decide,
  freeDevice,
  grant,
  type Policy,
  release,
} from '../../../../src/service/scheduler/devices.ts'

const policy: Policy = { share: 0.25, linger: 10, patience: 1 }

/** Plays a series of turns: both claimants ask again `gap` after each of their turns, serving always `pressing` or never. */
function play(
  until: number,
  { serving, training, gap }: Record<string, number>,
  how: Policy = policy,
  pressing = false,
) {
  const length = { serving: serving ?? 0, training: training ?? 0 }
  let state = freeDevice
  let now = 0
  let ticket = 0
  const asks: Array<{ at: number; claimant: Claimant }> = []
  const turns: Array<{ claimant: Claimant; from: number }> = []
  if (length.training) asks.push({ at: 0, claimant: 'training' })
  if (length.serving) asks.push({ at: 0, claimant: 'serving' })
  while (now < until) {
    for (const due of asks.filter((a) => a.at <= now)) {
      state = ask(state, due.claimant, ++ticket, pressing)
      asks.splice(asks.indexOf(due), 1)
    }
    const decision = decide(state, now, how)
    if (decision.type === 'grant') {
      state = grant(state, decision, now, how)
      turns.push({ claimant: decision.claimant, from: now })
      now += length[decision.claimant]
      state = release(state, now)
      asks.push({ at: now + (gap ?? 0), claimant: decision.claimant })
    } else {
      const next = Math.min(...asks.map((a) => a.at))
      now = decision.type === 'wait' ? Math.min(decision.until, next) : next
    }
  }
  return turns
}

test('one device has one holder', () => {
  let state = ask(ask(freeDevice, 'training', 1), 'serving', 2)
  const first = decide(state, 0, policy)
  expect(first).toEqual({ type: 'grant', claimant: 'serving', ticket: 2 })
  if (first.type !== 'grant') throw new Error('unreachable')
  state = grant(state, first, 0, policy)
  expect(decide(state, 5, policy)).toEqual({ type: 'idle' })
})

test('turns of one kind come in the order they were asked for', () => {
  const state = ask(ask(freeDevice, 'serving', 1), 'serving', 2)
  expect(decide(state, 0, policy)).toMatchObject({ ticket: 1 })
})

test('training alone never waits', () => {
  const turns = play(10_000, { training: 100, gap: 1 })
  expect(turns).toHaveLength(Math.ceil(10_000 / 101))
})

test.each([
  ['quick steps', 0.25, 50, false],
  ['slow steps', 0.25, 5000, false],
  ['half of the time', 0.5, 500, false],
  ['somebody always waits for a first token', 0.25, 500, true],
])('while serving wants all, training has its share: %s', (_, share, training, pressing) => {
  const until = 400 * training
  const turns = play(until, { serving: 20, training, gap: 1 }, { ...policy, share }, pressing)
  const steps = turns.filter(({ claimant }) => claimant === 'training').length
  // Less by the turn of serving that is under way when the share is due, and by the time between turns.
  expect((steps * training) / until).toBeGreaterThan(share * 0.85)
  expect((steps * training) / until).toBeLessThan(share * 1.02)
})

test.each([true, false])(
  'training that is due is put off while somebody waits for a first token: %s',
  (pressing) => {
    // Training's last turn took 100, so its next one is due at 300 and given at 400 at the latest.
    let state = { ...freeDevice, training_took: 100 }
    state = ask(ask(state, 'serving', 1), 'training', 2)
    state = grant(state, { claimant: 'serving', ticket: 1 }, 0, policy)
    state = ask(release(state, 310), 'serving', 3, pressing)
    expect(decide(state, 310, policy)).toMatchObject({
      claimant: pressing ? 'serving' : 'training',
    })
    if (!pressing) return
    state = release(grant(state, { claimant: 'serving', ticket: 3 }, 310, policy), 350)
    // It asks anew at once.
    expect(decide(state, 350, policy)).toEqual({ type: 'wait', until: 360 })
    const quiet = ask(state, 'serving', 4)
    expect(decide(quiet, 351, policy)).toMatchObject({ claimant: 'training' })
    const busy = ask(state, 'serving', 4, true)
    expect(decide(busy, 351, policy)).toMatchObject({ claimant: 'serving' })
    const late = release(grant(busy, { claimant: 'serving', ticket: 4 }, 351, policy), 400)
    expect(decide(ask(late, 'serving', 5, true), 400, policy)).toMatchObject({
      claimant: 'training',
    })
    // What it waited is taken off the next series.
    expect(grant(late, { claimant: 'training', ticket: 2 }, 400, policy).owed).toBe(100)
  },
)

test('when serving falls silent, training goes on after the linger', () => {
  let state = ask(ask({ ...freeDevice, training_took: 100 }, 'serving', 1), 'training', 2)
  state = grant(state, { claimant: 'serving', ticket: 1 }, 0, policy)
  state = release(state, 20)
  expect(decide(state, 20, policy)).toEqual({ type: 'wait', until: 30 })
  expect(decide(state, 30, policy)).toMatchObject({ claimant: 'training' })
})

test('the turns of a device never overlap, and both kinds get theirs', async () => {
  const device = new Device({ share: 0.25, linger: 2, patience: 1 })
  const seen: Claimant[] = []
  let holders = 0
  const claim = async (claimant: Claimant, times: number) => {
    const take = device.turns(claimant)
    for (let i = 0; i < times; i++) {
      const turn = await take()
      expect(++holders).toBe(1)
      seen.push(claimant)
      await new Promise((resolve) => setTimeout(resolve, 3))
      holders--
      turn[Symbol.dispose]()
      turn[Symbol.dispose]()
    }
  }
  await Promise.all([claim('serving', 20), claim('training', 3)])
  expect(seen.filter((claimant) => claimant === 'training')).toHaveLength(3)
  // The first serving turn and those of its time come before training's last.
  expect(seen.lastIndexOf('training')).toBeGreaterThan(3)
})
