// Faults planted in banking77, and found again.

import { describe, expect, test } from 'vitest'
import { ComparedRows } from '../../../../src/engine/curate/compared-rows.ts'
import { bagOf, isNear, wordsOf } from '../../../../src/engine/curate/words.ts'
import { banking77, curate, type Intent, readIntents, shuffled } from './banking77.ts'

describe.skipIf(banking77.missing)('faults planted in banking77', () => {
  const intents = shuffled(banking77.missing ? [] : readIntents(), 1)

  /** One word replaced, two swapped, or punctuation or case changed. */
  const edited = ({ text, label }: Intent, i: number): Intent => {
    const words = text.split(' ')
    const at = (i * 7) % (words.length - 1)
    if (i % 3 === 0) words[at] = 'perhaps'
    else if (i % 3 === 1) [words[at], words[at + 1]] = [words[at + 1]!, words[at]!]
    return { label, text: i % 3 === 2 ? `${words.join(' ').toUpperCase()} !!` : words.join(' ') }
  }

  test('duplicates are found, exact and edited, and only such as the definition has', async () => {
    const rows = intents.slice(0, 2500)
    const long = rows.filter(({ text }) => wordsOf(text).length >= 8)
    const exact = long.slice(0, 100)
    const near = long.slice(100, 200)
    const all = [...rows, ...exact, ...near.map(edited)]
    const compared = new ComparedRows()
    for (const [i, { text, label }] of all.entries())
      compared.add(i + 1, { input: text, asked: text, output: label })
    const line = (row: Intent) => rows.indexOf(row) + 1
    const together = (a: number, b: number) =>
      compared.clusterOf(a - 1) === compared.clusterOf(b - 1)

    const { duplicates } = await curate({ training: all })
    expect(duplicates.rows).toBeGreaterThanOrEqual(100)
    expect(exact.filter((row, i) => together(line(row), 2500 + i + 1))).toHaveLength(100)
    const found = near.filter((row, i) => together(line(row), 2600 + i + 1))
    expect(found.length).toBeGreaterThanOrEqual(95)

    // The definition over all pairs, and what hangs together by it.
    const bags = all.map(({ text }) => bagOf(text))
    const first = all.map((_, i) => i)
    const root = (i: number): number => (first[i] === i ? i : root(first[i]!))
    for (let a = 0; a < all.length; a++)
      for (let b = a + 1; b < all.length; b++)
        if (isNear(bags[a]!, bags[b]!))
          first[Math.max(root(a), root(b))] = Math.min(root(a), root(b))
    const said = all.map((_, i) => compared.clusterOf(i))
    const true_ones = all.map((_, i) => root(i))
    expect(said).toEqual(true_ones)
  })

  test('rows that have leaked into validation are found, and contradictions', async () => {
    const training = intents.slice(0, 2000)
    const clean = intents.slice(2000, 2400)
    const long = training.filter(({ text }) => wordsOf(text).length >= 8)
    const validation = [...clean, ...long.slice(0, 20), ...long.slice(20, 40).map(edited)]
    const flipped = training.slice(50, 60).map(({ text }) => ({ text, label: 'something_else' }))
    const { leakage, contradictions } = await curate({
      training: [...training, ...flipped],
      validation,
    })
    const lines = (kind: 'exact' | 'near') => leakage![kind].first.map(({ line }) => line)
    for (let i = 0; i < 20; i++) expect(lines('exact')).toContain(401 + i)
    const leaked = [...lines('exact'), ...lines('near')].filter((line) => line > 420)
    expect(leaked.length).toBeGreaterThanOrEqual(19)
    const contradicted = contradictions.largest.flatMap(({ lines }) => lines)
    for (let i = 0; i < 10; i++) expect(contradicted).toContain(2001 + i)
  })

  test('a split holds near-duplicates together, is the same again, and spares the last of a label', async () => {
    const rows = intents.slice(0, 600)
    const twice = [...rows, ...rows.filter(({ text }) => wordsOf(text).length >= 8).map(edited)]
    const lone = { text: 'a sentence like no other that is here', label: 'lonely' }
    const { held_back } = await curate({ training: [...twice, lone] }, { validation_split: 0.2 })
    const again = await curate({ training: [...twice, lone] }, { validation_split: 0.2 })
    expect(again.held_back).toEqual(held_back)
    expect(held_back!.length / twice.length).toBeCloseTo(0.2, 1)
    expect(held_back).not.toContain(twice.length + 1)
    const held = new Set(held_back)
    const bags = twice.map(({ text }) => bagOf(text))
    for (let a = 0; a < bags.length; a++)
      for (let b = a + 1; b < bags.length; b++)
        if (held.has(a + 1) !== held.has(b + 1)) expect(isNear(bags[a]!, bags[b]!)).toBe(false)
    // Another order of the rows splits them in the same way.
    const turned = await curate({ training: [lone, ...twice] }, { validation_split: 0.2 })
    expect(turned.held_back).toEqual(held_back!.map((line) => line + 1))
  })
})

test('groups are counted with their outputs, by field and by metadata', async () => {
  const training = Array.from({ length: 60 }, (_, i) => ({
    text: `text number ${i}`,
    label: i % 2 ? 'yes' : 'no',
    ...(i > 0 && { channel: i < 50 ? 'mail' : 'phone' }),
    metadata: { region: i % 2 ? 'north' : 'south' },
  }))
  const { groups, balance } = await curate({ training }, { groups: ['channel', 'region'] })
  expect(balance).toMatchObject({ kind: 'labels', distinct: 2 })
  expect(groups[0]).toMatchObject({
    missing: 1,
    missing_lines: [1],
    groups: [
      { value: 'mail', rows: 49, too_small: false },
      { value: 'phone', rows: 10, too_small: true },
    ],
  })
  expect(groups[1]!.groups).toEqual([
    { value: 'north', rows: 30, share: 0.5, too_small: false, output_rates: { yes: 1 } },
    { value: 'south', rows: 30, share: 0.5, too_small: false, output_rates: { no: 1 } },
  ])
})
