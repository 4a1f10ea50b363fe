// Training rows against reference rows, where it is known how they differ.

import { describe, expect, test } from 'vitest'
import { banking77, curate, readIntents, shuffled } from './banking77.ts'

describe.skipIf(banking77.missing)('banking77 as training rows and reference rows', () => {
  const intents = banking77.missing ? [] : readIntents()
  const labels = [...new Set(intents.map(({ label }) => label))]

  test('honest splits are seldom told apart', async () => {
    let honest = 0
    for (let seed = 0; seed < 40; seed++) {
      const rows = shuffled(intents, seed)
      const { representativeness } = await curate({
        training: rows.slice(0, 1000),
        reference: rows.slice(1000, 1800).map(({ text }) => ({ text })),
      })
      const [low, high] = representativeness!.interval!
      if (low <= 0.5 && high >= 0.5) honest++
    }
    expect(honest).toBeGreaterThanOrEqual(36)
  })

  test.each([
    [0.3, 0.27],
    [0.6, 0.35],
  ])('a region of %f of the reference that training lacks is found', async (share, factor) => {
    const rows = shuffled(intents, 201)
    const reference = rows.slice(0, 3000)
    const region = new Set<string>()
    let missing = 0
    for (const label of shuffled(labels, 1)) {
      const count = reference.filter((row) => row.label === label).length
      if (missing + count > share * 3000 * 1.02) continue
      region.add(label)
      missing += count
    }
    const { representativeness } = await curate({
      training: rows.slice(3000).filter(({ label }) => !region.has(label)),
      reference: reference.map(({ text }) => ({ text })),
    })
    const { auc, interval, unlike } = representativeness!
    expect(auc).toBeGreaterThanOrEqual(0.5 + factor * (missing / 3000))
    expect(interval![0]).toBeGreaterThan(0.5)
    expect(unlike.length).toBeGreaterThan(0)
    const right = unlike.filter(({ line }) => region.has(reference[line - 1]!.label))
    expect(right.length / unlike.length).toBeGreaterThanOrEqual(0.8)
  })
})
