import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { parseTicket, readHeldOut } from '../../../src/quickstart/tickets.ts'

test.each([
  ['{"category": "order", "product": "kettle", "urgent": false}', 'order'],
  ['{"category":"advice","product":null,"urgent":true}\n', 'advice'],
])('%s is a ticket', (text, category) => {
  expect(parseTicket(text)).toBe(category)
})

test.each([
  ['no JSON', 'This is an order.'],
  ['text around it', 'Ticket: {"category": "order", "product": null, "urgent": false}'],
  ['cut off', '{"category": "order", "product": nu'],
  ['a list', '[{"category": "order", "product": null, "urgent": false}]'],
  ['null', 'null'],
  ['an unknown category', '{"category": "refund", "product": null, "urgent": false}'],
  ['a missing key', '{"category": "order", "product": null}'],
  ['a key too many', '{"category": "order", "product": null, "urgent": false, "id": 1}'],
  ['a product of another type', '{"category": "order", "product": 3, "urgent": false}'],
  ['a word instead of a boolean', '{"category": "order", "product": null, "urgent": "no"}'],
])('%s is no ticket', (_, text) => {
  expect(parseTicket(text)).toBeUndefined()
})

test('of a held-out row the label is kept apart from what the model is asked', async () => {
  const path = new URL('../../../examples/support-desk/heldout.jsonl', import.meta.url)
  const rows = await readHeldOut(fileURLToPath(path))
  expect(rows.length).toBeGreaterThanOrEqual(60)
  for (const { prompt, category } of rows) {
    expect(prompt.map((message) => message.role)).toEqual(['system', 'user'])
    expect(category).toMatch(/^[a-z]+$/)
  }
})
