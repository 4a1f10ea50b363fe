import { expect, test } from 'vitest'
import { prepareSchema } from '../../../../src/engine/grammar/schema.ts'

const prepare = (schema: unknown) => JSON.parse(prepareSchema(schema, 's').text)

test.each([
  ['s.properties.a.multipleOf', { properties: { a: { type: 'integer', multipleOf: 2 } } }],
  ['s.items.not', { type: 'array', items: { not: {} } }],
  [
    's.$defs.x.minProperties',
    { $defs: { x: { type: 'object', minProperties: 1 } }, $ref: '#/$defs/x' },
  ],
  ['s.properties', { anyOf: [{ type: 'null' }], properties: {} }],
  ['s.oneOf', { oneOf: [{ type: 'integer' }, { type: 'number' }] }],
  ['s.allOf', { allOf: [{ type: 'object' }, { type: 'object' }] }],
  ['s.pattern', { type: 'string', pattern: '(?=a)b' }],
  ['s.pattern', { type: 'string', pattern: '"' }],
  ['s.pattern', { type: 'string', pattern: '[ -~]' }],
  ['s.maximum', { type: 'number', maximum: 1 }],
  ['s.type', { type: 'text' }],
  ['s.$ref', { $ref: 'https://example.com/a.json' }],
  ['s.required', { type: 'object', required: ['a'], additionalProperties: false }],
])('what cannot be honoured is named: %s', (param, schema) => {
  expect(() => prepareSchema(schema, 's')).toThrow(
    expect.objectContaining({ status: 400, param, code: 'invalid_json_schema' }),
  )
})

test('a list of types becomes a union, each with its own keywords', () => {
  expect(prepare({ type: ['integer', 'string'], minimum: 1, maxLength: 2 })).toEqual({
    anyOf: [
      { minimum: 1, type: 'integer' },
      { maxLength: 2, type: 'string' },
    ],
  })
})

test('branches that a constant tells apart may be a oneOf', () => {
  const branch = (kind: string) => ({
    type: 'object',
    properties: { kind: { const: kind } },
    required: ['kind'],
  })
  expect(prepare({ oneOf: [branch('a'), branch('b')] }).anyOf).toHaveLength(2)
  expect(() => prepareSchema({ oneOf: [branch('a'), branch('a')] }, 's')).toThrow(/oneOf/)
})

test('an enum keeps the values that its type allows', () => {
  expect(prepare({ type: 'string', enum: ['a', 1] })).toEqual({ enum: ['a'] })
})
