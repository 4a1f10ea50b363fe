import { expect, test } from 'vitest'
import { Ledger } from '../../../../src/service/jobs/ledger.ts'

const part = (epoch: number, losses: Record<number, number>) => ({
  epoch,
  lines: Int32Array.from(Object.keys(losses), Number),
  losses: Float32Array.from(Object.values(losses)),
})
const lines = (rows: { line: number }[]) => rows.map(({ line }) => line)

const ledger = new Ledger([
  // Parts of an epoch come in the order of training; line 4 was left out.
  part(1, { 5: 2, 1: 2 }),
  part(1, { 3: 4, 2: 3 }),
  part(2, { 1: 0.5, 2: 3, 3: 0.25, 5: 1 }),
  part(3, { 3: 2.25, 5: 0.5, 2: 2, 1: 0.25 }),
])

test('rows are ordered by what each order asks, and rows that were not learned from are in none', () => {
  expect(lines(ledger.ranked('likely_wrong_label'))[0]).toBe(2)
  expect(lines(ledger.ranked('never_learned'))).toEqual([2, 5, 1, 3])
  expect(lines(ledger.ranked('forgotten'))).toEqual([3, 1, 2, 5])
  expect(lines(ledger.ranked('loss'))).toEqual([3, 2, 5, 1])
  expect(ledger.ranked('forgotten')[0]).toEqual({ line: 3, score: 2, losses: [4, 0.25, 2.25] })
  expect(ledger.has(4)).toBe(false)
  expect(ledger.has(6)).toBe(false)
})

test('pages of any size are the whole order, cut', () => {
  const many = new Ledger([
    part(1, Object.fromEntries(Array.from({ length: 500 }, (_, i) => [i + 1, (i * 37) % 101]))),
  ])
  const all = lines(many.ranked('loss'))
  expect(all).toHaveLength(500)
  for (const count of [1, 7, 300]) {
    const paged: number[] = []
    while (paged.length < 500) {
      const after = paged.at(-1)
      const page = many.ranked('loss', { count, ...(after !== undefined && { after }) })
      paged.push(...lines(page))
    }
    expect(paged).toEqual(all)
  }
})

test('a job that has learned nothing yet has no rows to show', () => {
  expect(new Ledger([]).ranked('loss')).toEqual([])
})
