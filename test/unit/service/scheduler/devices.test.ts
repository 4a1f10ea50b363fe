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

const policy: Policy = { quantum: 1000, linger: 10 }

/** Plays a series of turns: both claimants ask again `gap` after each of their turns. */
function play(until: number, { serving, training, gap }: Record<string, number>) {
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
      state = ask(state, due.claimant, ++ticket)
      asks.splice(asks.indexOf(due), 1)
    }
    const decision = decide(state, now, policy)
    if (decision.type === 'grant') {
      state = grant(state, decision, now, policy)
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

test('a step longer than the quantum gives serving as long a time', () => {
  const turns = play(100_000, { serving: 100, training: 5000, gap: 1 })
  const trained = turns.filter(({ claimant }) => claimant === 'training').length
  const served = turns.length - trained
  // Half of the time each: 100 turns of 100 ms for 2 of 5 s.
  expect(served / trained).toBeGreaterThan(45)
  expect(served / trained).toBeLessThan(60)
})

test('while serving decodes, training gets one step after each quantum of serving', () => {
  const turns = play(20_000, { serving: 20, training: 500, gap: 1 })
  const steps = turns.filter((turn) => turn.claimant === 'training')
  const gaps = steps.slice(1).map((step, i) => step.from - (steps[i]?.from ?? 0) - 500)
  expect(gaps.length).toBeGreaterThan(10)
  for (const gap of gaps) {
    expect(gap).toBeGreaterThanOrEqual(1000)
    expect(gap).toBeLessThanOrEqual(1000 + 25)
  }
})

test('when serving falls silent, training goes on after the linger', () => {
  let state = ask(ask(freeDevice, 'serving', 1), 'training', 2)
  state = grant(state, { claimant: 'serving', ticket: 1 }, 0, policy)
  state = release(state, 20)
  expect(decide(state, 20, policy)).toEqual({ type: 'wait', until: 30 })
  expect(decide(state, 30, policy)).toMatchObject({ claimant: 'training' })
})

test('the turns of a device never overlap, and both kinds get theirs', async () => {
  const device = new Device({ quantum: 20, linger: 2 })
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
  // The first serving turn and those of its quantum come before training's last.
  expect(seen.lastIndexOf('training')).toBeGreaterThan(3)
})
