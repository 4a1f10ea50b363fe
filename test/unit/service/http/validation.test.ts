import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { expect, test } from 'vitest'
import { describeMistakes, validatorCompiler } from '../../../../src/service/http/validation.ts'

const strict = { additionalProperties: false }
const Request = Type.Object(
  {
    model: Type.String({ maxLength: 8 }),
    epochs: Type.Optional(
      Type.Union([Type.Literal('auto'), Type.Integer({ minimum: 1, maximum: 50 })]),
    ),
    temperature: Type.Optional(Type.Union([Type.Number({ minimum: 0, maximum: 2 }), Type.Null()])),
    mode: Type.Optional(Type.Union([Type.Literal('a'), Type.Literal('b'), Type.Literal('c')])),
    method: Type.Optional(
      Type.Object(
        { supervised: Type.Object({ n: Type.Optional(Type.Integer()) }, strict) },
        strict,
      ),
    ),
    metadata: Type.Optional(Type.Record(Type.String(), Type.String({ maxLength: 5 }))),
    messages: Type.Optional(
      Type.Array(
        Type.Union([
          Type.Object(
            {
              role: Type.Literal('user'),
              content: Type.Union([
                Type.String(),
                Type.Array(Type.Object({ type: Type.Literal('text'), text: Type.String() })),
              ]),
            },
            strict,
          ),
          Type.Object({ role: Type.Literal('assistant'), content: Type.String() }, strict),
        ]),
        { minItems: 1 },
      ),
    ),
  },
  strict,
)

const user = (content: unknown, more: object = {}) => ({
  model: 'm',
  messages: [{ role: 'user', content, ...more }],
})

test.each<[string, unknown, string | null, string, string]>([
  ['no field', {}, 'model', 'missing_required_parameter', "Missing required parameter: 'model'."],
  [
    'no body',
    undefined,
    null,
    'invalid_type',
    'Invalid type for the request body: expected an object, but got null instead.',
  ],
  [
    'wrong type',
    { model: 3 },
    'model',
    'invalid_type',
    "Invalid type for 'model': expected a string, but got an integer instead.",
  ],
  [
    'too long',
    { model: '123456789' },
    'model',
    'invalid_value',
    "Invalid 'model': string too long. Expected a string with maximum length 8, but got length 9 instead.",
  ],
  ['unknown', { model: 'm', foo: 1 }, 'foo', 'unknown_parameter', "Unknown parameter: 'foo'."],
  [
    'unknown deep down',
    { model: 'm', method: { supervised: { x: 1 } } },
    'method.supervised.x',
    'unknown_parameter',
    "Unknown parameter: 'method.supervised.x'.",
  ],
  [
    'below the least',
    { model: 'm', epochs: 0 },
    'epochs',
    'invalid_value',
    "Invalid 'epochs': expected a value >= 1, but got 0 instead.",
  ],
  [
    'a fraction',
    { model: 'm', epochs: 1.5 },
    'epochs',
    'invalid_type',
    "Invalid type for 'epochs': expected one of 'auto' or an integer, but got a decimal number instead.",
  ],
  [
    'another word',
    { model: 'm', epochs: 'all' },
    'epochs',
    'invalid_value',
    "Invalid value: 'all'. Supported value is: 'auto'.",
  ],
  [
    'number or null',
    { model: 'm', temperature: 'hot' },
    'temperature',
    'invalid_type',
    "Invalid type for 'temperature': expected one of a number or null, but got a string instead.",
  ],
  [
    'above the most',
    { model: 'm', temperature: 3 },
    'temperature',
    'invalid_value',
    "Invalid 'temperature': expected a value <= 2, but got 3 instead.",
  ],
  [
    'none of the words',
    { model: 'm', mode: 'z' },
    'mode',
    'invalid_value',
    "Invalid value: 'z'. Supported values are: 'a', 'b', and 'c'.",
  ],
  [
    'no word',
    { model: 'm', mode: 3 },
    'mode',
    'invalid_type',
    "Invalid type for 'mode': expected one of 'a', 'b', or 'c', but got an integer instead.",
  ],
  [
    'map value',
    { model: 'm', metadata: { k: 'xxxxxx' } },
    'metadata.k',
    'invalid_value',
    "Invalid 'metadata.k': string too long. Expected a string with maximum length 5, but got length 6 instead.",
  ],
  [
    'empty list',
    { model: 'm', messages: [] },
    'messages',
    'invalid_value',
    "Invalid 'messages': array too short. Expected an array with minimum length 1, but got length 0 instead.",
  ],
  [
    'unknown tag',
    { model: 'm', messages: [{ role: 'x', content: '' }] },
    'messages[0].role',
    'invalid_value',
    "Invalid value: 'x'. Supported values are: 'user' and 'assistant'.",
  ],
  [
    'in the branch that was meant',
    user([{ type: 'text' }]),
    'messages[0].content[0].text',
    'missing_required_parameter',
    "Missing required parameter: 'messages[0].content[0].text'.",
  ],
  [
    'neither kind',
    user(3),
    'messages[0].content',
    'invalid_type',
    "Invalid type for 'messages[0].content': expected one of a string or an array, but got an integer instead.",
  ],
  [
    'unknown in a branch',
    user('', { name: 'x' }),
    'messages[0].name',
    'unknown_parameter',
    "Unknown parameter: 'messages[0].name'.",
  ],
])('a request with a mistake is told which: %s', (_, value, param, code, message) => {
  const error = describeMistakes(Compile(Request).Errors(value), value)
  expect(error).toMatchObject({ status: 400, param, code, message })
})

test('numbers in a query are read, words are left', () => {
  const schema = Type.Object({
    limit: Type.Optional(Type.Integer({ maximum: 10 })),
    after: Type.Optional(Type.String()),
  })
  const check = validatorCompiler({ schema, method: 'GET', url: '/', httpPart: 'querystring' })
  expect(check({ limit: '3', after: '4' })).toEqual({ value: { limit: 3, after: '4' } })
  expect(check({ limit: 'x' })).toMatchObject({ error: { param: 'limit', code: 'invalid_type' } })
  expect(check({ limit: '11' })).toMatchObject({ error: { param: 'limit', code: 'invalid_value' } })
})
