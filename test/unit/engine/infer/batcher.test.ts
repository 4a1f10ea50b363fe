import { expect, test } from 'vitest'
import { add, createBatcher, nextStep, remove } from '../../../../src/engine/infer/batcher.ts'

/** The next steps in short: `p1` admits 1, `d1,2` decodes 1 and 2. */
function steps(batcher: ReturnType<typeof createBatcher<number>>, count: number) {
  return Array.from({ length: count }, () => {
    const step = nextStep(batcher)
    if (!step) return 'none'
    return step.type === 'prefill' ? `p${step.sequence}` : `d${step.sequences.join()}`
  })
}

test('without work there is no step', () => {
  expect(nextStep(createBatcher())).toBeUndefined()
})

test('prompts come one at a time, and those that decode go on in between', () => {
  const batcher = createBatcher<number>()
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, 'request')
  expect(steps(batcher, 7)).toEqual(['p1', 'd1', 'p2', 'd1,2', 'p3', 'd1,2,3', 'd1,2,3'])
})

test('no more than the width decode together; a place that frees is taken', () => {
  const batcher = createBatcher<number>({ width: 2 })
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, 'request')
  expect(steps(batcher, 5)).toEqual(['p1', 'd1', 'p2', 'd1,2', 'd1,2'])
  expect(remove(batcher, 1)).toBe(true)
  expect(steps(batcher, 2)).toEqual(['p3', 'd2,3'])
})

test('requests take turns: many choices of one do not hold up another', () => {
  const batcher = createBatcher<number>({ width: 3 })
  for (const sequence of [1, 2, 3, 4]) add(batcher, 'm', sequence, 'many')
  add(batcher, 'm', 10, 'one')
  const admitted = steps(batcher, 5).filter((step) => step.startsWith('p'))
  expect(admitted).toEqual(['p1', 'p10', 'p2'])
  add(batcher, 'm', 20, 'late')
  remove(batcher, 3)
  remove(batcher, 1)
  expect(steps(batcher, 2)).toEqual(['d10,2', 'p4'])
  remove(batcher, 4)
  expect(steps(batcher, 2)).toEqual(['d10,2', 'p20'])
})

test('targets take turns and are never in one step', () => {
  const batcher = createBatcher<number>()
  for (const sequence of [1, 2]) add(batcher, 'm', sequence, 'request')
  add(batcher, 'other', 10, 'request')
  expect(steps(batcher, 6)).toEqual(['p1', 'p10', 'd1', 'd10', 'p2', 'd10'])
})

test('an aborted sequence is gone, whether it waits or decodes', () => {
  const batcher = createBatcher<number>()
  for (const sequence of [1, 2, 3]) add(batcher, 'm', sequence, 'request')
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
  add(batcher, 'm', 1, 'request')
  nextStep(batcher)
  const step = nextStep(batcher)
  remove(batcher, 1)
  expect(step).toEqual({ type: 'decode', target: 'm', sequences: [1] })
})
