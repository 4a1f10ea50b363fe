import { expect, test } from 'vitest'
import {
  add,
  begin,
  createBatcher,
  nextStep,
  occupancy,
  remove,
} from '../../../../src/engine/infer/batcher.ts'

/** The next steps in short: `p1` reads the prompt of 1, in one piece, `d1,2` decodes 1 and 2. */
function steps(batcher: ReturnType<typeof createBatcher<number>>, count: number) {
  return Array.from({ length: count }, () => {
    const step = nextStep(batcher)
    if (!step) return 'none'
    if (step.type === 'decode') return `d${step.sequences.join()}`
    for (const sequence of step.sequences) begin(batcher, sequence)
    return `p${step.sequences.join()}`
  })
}

test('without work there is no step', () => {
  expect(nextStep(createBatcher())).toBeUndefined()
})

test('prompts come one at a time, and those that decode go on in between', () => {
  const batcher = createBatcher<number>()
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, { owner: 'request' })
  expect(steps(batcher, 7)).toEqual(['p1', 'd1', 'p2', 'd1,2', 'p3', 'd1,2,3', 'd1,2,3'])
})

test('no more than the width decode together; a place that frees is taken', () => {
  const batcher = createBatcher<number>({ width: 2 })
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, { owner: 'request' })
  expect(steps(batcher, 5)).toEqual(['p1', 'd1', 'p2', 'd1,2', 'd1,2'])
  expect(remove(batcher, 1)).toBe(true)
  expect(steps(batcher, 2)).toEqual(['p3', 'd2,3'])
})

test('requests take turns: many choices of one do not hold up another', () => {
  const batcher = createBatcher<number>({ width: 3 })
  for (const sequence of [1, 2, 3, 4]) add(batcher, 'm', sequence, { owner: 'many' })
  add(batcher, 'm', 10, { owner: 'one' })
  const admitted = steps(batcher, 5).filter((step) => step.startsWith('p'))
  expect(admitted).toEqual(['p1', 'p10', 'p2'])
  add(batcher, 'm', 20, { owner: 'late' })
  remove(batcher, 3)
  remove(batcher, 1)
  expect(steps(batcher, 2)).toEqual(['d10,2', 'p4'])
  remove(batcher, 4)
  expect(steps(batcher, 2)).toEqual(['d10,2', 'p20'])
})

test('targets take turns and are never in one step', () => {
  const batcher = createBatcher<number>()
  for (const sequence of [1, 2]) add(batcher, 'm', sequence, { owner: 'request' })
  add(batcher, 'other', 10, { owner: 'request' })
  expect(steps(batcher, 6)).toEqual(['p1', 'p10', 'd1', 'd10', 'p2', 'd10'])
})

test('an aborted sequence is gone, whether it waits or decodes', () => {
  const batcher = createBatcher<number>()
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, { owner: 'request' })
  expect(steps(batcher, 1)).toEqual(['p1'])
  expect(remove(batcher, 2)).toBe(true)
  expect(remove(batcher, 1)).toBe(true)
  expect(remove(batcher, 1)).toBe(false)
  expect(steps(batcher, 2)).toEqual(['p3', 'd3'])
  remove(batcher, 3)
  expect(nextStep(batcher)).toBeUndefined()
})

test('what a step names does not change under its reader', () => {
  const batcher = createBatcher<number>()
  add(batcher, 'm', 1, { owner: 'request' })
  steps(batcher, 1)
  const step = nextStep(batcher)
  remove(batcher, 1)
  expect(step).toEqual({ type: 'decode', target: 'm', sequences: [1] })
})

test('a long prompt is read in pieces, and those that decode go on between them', () => {
  const batcher = createBatcher<number>()
  add(batcher, 'm', 1, { owner: 'request' })
  expect(steps(batcher, 1)).toEqual(['p1'])
  add(batcher, 'm', 2, { owner: 'long' })
  add(batcher, 'm', 3, { owner: 'late' })
  const types = Array.from({ length: 5 }, () => {
    const step = nextStep(batcher)
    return step?.type === 'prefill' ? `p${step.sequences}` : step?.type
  })
  expect(types).toEqual(['decode', 'p2', 'decode', 'p2', 'decode'])
  expect(remove(batcher, 2)).toBe(true)
  expect(steps(batcher, 2)).toEqual(['p3', 'd1,3'])
})

test('low priority: read while nobody else waits, put aside for who comes, and in half of the width', () => {
  const batcher = createBatcher<number>({ width: 4 })
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, { owner: 'batch', low: true })
  expect(steps(batcher, 4)).toEqual(['p1', 'd1', 'p2', 'd1,2'])
  // Half of the width is theirs; the rest stays free, though nobody asks for it.
  expect(steps(batcher, 2)).toEqual(['d1,2', 'd1,2'])
  remove(batcher, 1)
  expect(nextStep(batcher)).toMatchObject({ type: 'prefill', sequences: [3] })
  add(batcher, 'm', 10, { owner: 'a client' })
  add(batcher, 'm', 11, { owner: 'another' })
  expect(steps(batcher, 6)).toEqual(['d2', 'p10', 'd2,10', 'p11', 'd2,10,11', 'p3'])
  for (const sequence of [2, 3, 10, 11]) expect(remove(batcher, sequence)).toBe(true)
  expect(nextStep(batcher)).toBeUndefined()
})

test('prompts that fit are read together, one of each owner', () => {
  const batcher = createBatcher<number>({ width: 4 })
  const fits = (together: readonly number[], next: number) => next < 10 && together.length < 3
  for (const [owner, sequence] of [
    ['a', 1],
    ['a', 2],
    ['b', 30],
    ['c', 4],
    ['d', 5],
    ['e', 6],
  ] as const)
    add(batcher, 'm', sequence, { owner })
  const read = () => {
    const step = nextStep(batcher, fits)
    if (step?.type !== 'prefill') return step?.type
    for (const sequence of step.sequences.slice(1)) begin(batcher, sequence)
    return step.sequences
  }
  expect(read()).toEqual([1, 4, 5])
  expect(read()).toEqual('decode')
  // Who has not been read to the end goes on, by itself.
  expect(read()).toEqual([1])
  begin(batcher, 1)
  expect(read()).toEqual('decode')
  expect(occupancy(batcher)).toEqual({ running: 3, waiting: 3 })
  expect(read()).toEqual([30]) // the width leaves one place
  expect(remove(batcher, 30)).toBe(true)
  expect(remove(batcher, 4)).toBe(true)
  expect(read()).toEqual('decode')
  expect(read()).toEqual([6, 2])
})
