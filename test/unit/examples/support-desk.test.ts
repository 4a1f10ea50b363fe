// The sample set of the quickstart is data that the project's claims rest on: it is held to its form.

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

const FOLDER = new URL('../../../examples/support-desk/', import.meta.url)
const CATEGORIES = ['delivery', 'defect', 'return', 'billing', 'account', 'order', 'advice']

interface Row {
  messages: { role: string; content: string }[]
}

const read = (name: string): Row[] =>
  readFileSync(new URL(name, FOLDER), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)

const train = read('train.jsonl')
const heldout = read('heldout.jsonl')
const message = (row: Row) => row.messages[1]?.content ?? ''
const ticket = (row: Row) =>
  JSON.parse(row.messages[2]?.content ?? '') as Record<string, string | boolean | null>

const words = (text: string) => new Set(text.toLowerCase().match(/[a-z']+/g))
function overlap(a: Set<string>, b: Set<string>): number {
  const both = [...a].filter((word) => b.has(word)).length
  return both / (a.size + b.size - both)
}

test('there are at least 240 rows to train on and 60 held out', () => {
  expect(train.length).toBeGreaterThanOrEqual(240)
  expect(heldout.length).toBeGreaterThanOrEqual(60)
})

describe.each([
  ['train.jsonl', train],
  ['heldout.jsonl', heldout],
])('%s', (_, rows) => {
  test('every row is one system prompt, one message and one ticket of the fixed form', () => {
    for (const row of rows) {
      expect(row.messages.map((m) => m.role)).toEqual(['system', 'user', 'assistant'])
      expect(row.messages[0]?.content).toBe(train[0]?.messages[0]?.content)
      const { category, product, urgent, ...rest } = ticket(row)
      expect(rest).toEqual({})
      expect(CATEGORIES).toContain(category)
      expect(product === null || typeof product === 'string').toBe(true)
      expect(typeof urgent).toBe('boolean')
    }
  })

  test('the system prompt names every category', () => {
    for (const category of CATEGORIES)
      expect(rows[0]?.messages[0]?.content).toContain(`"${category}"`)
  })

  test('every category occurs, and none in more than three rows of ten', () => {
    for (const category of CATEGORIES) {
      const share = rows.filter((row) => ticket(row).category === category).length / rows.length
      expect(share).toBeGreaterThan(0.1)
      expect(share).toBeLessThanOrEqual(0.3)
    }
  })

  test('a product on the ticket is named in the message', () => {
    for (const row of rows) {
      const { product } = ticket(row)
      if (product === null) continue
      const head = String(product).split(' ').at(-1) ?? ''
      expect(message(row).toLowerCase()).toContain(head)
    }
  })
})

test('no message is a copy or a near copy of another: at most half of their words are shared', () => {
  const all = [...train, ...heldout].map((row) => ({
    text: message(row),
    set: words(message(row)),
  }))
  for (const [i, a] of all.entries())
    for (const b of all.slice(0, i))
      expect(overlap(a.set, b.set), `${a.text} | ${b.text}`).toBeLessThanOrEqual(0.5)
})
