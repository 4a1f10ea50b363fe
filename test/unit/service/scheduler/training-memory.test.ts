import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { TrainingMemory } from '../../../../src/service/scheduler/training-memory.ts'

const forever = new AbortController().signal

/** Notes in which order jobs of these sizes are let in. */
function jobs(memory: TrainingMemory) {
  const entered: string[] = []
  return {
    entered,
    async begin(name: string, bytes: number, signal = forever) {
      const reserved = await memory.reserve(bytes, signal)
      entered.push(name)
      return reserved
    },
  }
}

test('jobs run together as long as they fit, and in their order', async () => {
  const { entered, begin } = jobs(new TrainingMemory(10))
  const a = await begin('a', 4)
  await begin('b', 5)
  const c = begin('c', 4)
  const d = begin('d', 1)
  await sleep(1)
  // d would fit, but c was there first.
  expect(entered).toEqual(['a', 'b'])
  a[Symbol.dispose]()
  a[Symbol.dispose]()
  await Promise.all([c, d])
  expect(entered).toEqual(['a', 'b', 'c', 'd'])
})

test('a job that is larger than all memory runs alone', async () => {
  const { entered, begin } = jobs(new TrainingMemory(10))
  const small = await begin('small', 1)
  const large = begin('large', 30)
  await sleep(1)
  expect(entered).toEqual(['small'])
  small[Symbol.dispose]()
  await large
  expect(entered).toEqual(['small', 'large'])
})

test('one that stops waiting makes way for the next', async () => {
  const { entered, begin } = jobs(new TrainingMemory(10))
  await begin('a', 8)
  const stop = new AbortController()
  const waiting = begin('b', 8, stop.signal)
  const next = begin('c', 2)
  stop.abort(new Error('cancelled'))
  await expect(waiting).rejects.toThrow('cancelled')
  await next
  expect(entered).toEqual(['a', 'c'])
})
