import fc from 'fast-check'
import { expect, test } from 'vitest'
import { checkLine, checkRow, detectFormat } from '../../../../src/engine/datasets/rows.ts'

const user = { role: 'user', content: 'Hi' }
const assistant = { role: 'assistant', content: 'Hello' }
const call = (id: string) => ({
  id,
  type: 'function',
  function: { name: 'f', arguments: '{"a":1}' },
})
const calls = (...ids: string[]) => ({ role: 'assistant', tool_calls: ids.map(call) })
const answer = (tool_call_id: string) => ({ role: 'tool', tool_call_id, content: 'x' })

/** The errors of a row as `check pointer`. */
const found = (row: unknown) =>
  checkRow(3, row).errors.map(({ line, check, pointer }) => {
    expect(line).toBe(3)
    return `${check} ${pointer}`
  })

const chat = (...messages: unknown[]) => ({ messages })

test.each([
  ['a plain chat', chat(user, assistant)],
  ['a system prompt', chat({ role: 'system', content: 'x' }, user, assistant)],
  ['a developer prompt', chat({ role: 'developer', content: 'x' }, user, assistant)],
  ['weights', chat(user, { ...assistant, weight: 0 }, user, { ...assistant, weight: 1 })],
  ['text parts', chat({ role: 'user', content: [{ type: 'text', text: 'a' }] }, assistant)],
  ['a call and its answer', chat(user, calls('1'), answer('1'), assistant)],
  [
    'two calls, answered in another order',
    chat(user, calls('1', '2'), answer('2'), answer('1'), assistant),
  ],
  ['a call at the end', chat(user, calls('1'))],
  ['content null beside a call', chat(user, { ...calls('1'), content: null })],
  [
    'a function of old',
    chat(
      user,
      { role: 'assistant', function_call: { name: 'f', arguments: '{}' } },
      { role: 'function', name: 'f', content: '1' },
      assistant,
    ),
  ],
  [
    'tools',
    {
      ...chat(user, assistant),
      tools: [{ type: 'function', function: { name: 'f' } }],
      parallel_tool_calls: false,
    },
  ],
  ['a completion', { prompt: 'a', completion: 'b' }],
  ['a plain text, whatever else is told of it', { text: 'a', source: 'b' }],
  ['a completion of an empty prompt', { prompt: '', completion: 'b' }],
])('%s is right', (_, row) => {
  expect(found(row)).toEqual([])
})

test.each([
  ['a list', [], ['data_type ']],
  ['a string', 'x', ['data_type ']],
  ['null', null, ['data_type ']],
  ['no known format', { x: 'x' }, ['unexpected_format ']],
  ['a text that is none', { text: 1 }, ['data_type /text']],
  ['an empty text', { text: '' }, ['missing_text /text']],
  ['a labelled text', { text: 'a', label: 'b' }, ['unrecognized_key /label']],
  ['no messages', { messages: [] }, ['missing_messages_list /messages']],
  ['messages that are no list', { messages: {} }, ['missing_messages_list /messages']],
  ['a message that is no object', chat('x', assistant), ['data_type /messages/0']],
  ['no role', chat({ content: 'x' }, assistant), ['message_missing_key /messages/0']],
  [
    'an unknown role',
    chat({ role: 'bot', content: 'x' }, assistant),
    ['unrecognized_role /messages/0/role'],
  ],
  [
    'a role that is no string',
    chat({ role: 1, content: 'x' }, assistant),
    ['unrecognized_role /messages/0/role'],
  ],
  ['no content', chat({ role: 'user' }, assistant), ['message_missing_key /messages/0']],
  [
    'content null',
    chat({ role: 'user', content: null }, assistant),
    ['missing_content /messages/0/content'],
  ],
  [
    'content empty',
    chat({ role: 'user', content: '' }, assistant),
    ['missing_content /messages/0/content'],
  ],
  [
    'content a number',
    chat({ role: 'user', content: 5 }, assistant),
    ['data_type /messages/0/content'],
  ],
  [
    'an image',
    chat({ role: 'user', content: [{ type: 'image_url', image_url: {} }] }, assistant),
    ['unsupported_content /messages/0/content/0/type'],
  ],
  [
    'a text part without text',
    chat({ role: 'user', content: [{ type: 'text' }] }, assistant),
    ['data_type /messages/0/content/0/text'],
  ],
  [
    'an unknown key',
    chat({ ...user, 'a/b': 1 }, assistant),
    ['message_unrecognized_key /messages/0/a~1b'],
  ],
  [
    'a name that is no string',
    chat({ ...user, name: 1 }, assistant),
    ['data_type /messages/0/name'],
  ],
  ['weight 0.5', chat(user, { ...assistant, weight: 0.5 }), ['invalid_weight /messages/1/weight']],
  [
    'weight as text',
    chat(user, { ...assistant, weight: '1' }),
    ['invalid_weight /messages/1/weight'],
  ],
  [
    'weight of a user',
    chat({ ...user, weight: 1 }, assistant),
    ['invalid_weight /messages/0/weight'],
  ],
  ['all weights 0', chat(user, { ...assistant, weight: 0 }), ['all_weights_zero /messages']],
  ['no assistant', chat(user), ['example_missing_assistant_message /messages']],
  ['a user at the end', chat(user, assistant, user), ['last_message_not_assistant /messages/2']],
  [
    'a call without answer',
    chat(user, calls('1', '2'), answer('1'), assistant),
    ['tool_call_without_answer /messages/1/tool_calls/1'],
  ],
  [
    'an answer nobody asked for',
    chat(user, answer('9'), assistant),
    ['tool_message_without_call /messages/1/tool_call_id'],
  ],
  [
    'a second answer',
    chat(user, calls('1'), answer('1'), answer('1'), assistant),
    ['tool_message_without_call /messages/3/tool_call_id'],
  ],
  [
    'a tool without tool_call_id',
    chat(user, calls('1'), { role: 'tool', content: 'x' }, assistant),
    ['message_missing_key /messages/2', 'tool_call_without_answer /messages/1/tool_calls/0'],
  ],
  [
    'a call of a user',
    chat({ ...user, tool_calls: [call('1')] }, assistant),
    [
      'invalid_tool_calls /messages/0/tool_calls',
      'tool_call_without_answer /messages/0/tool_calls/0',
    ],
  ],
  [
    'calls that are no list',
    chat(user, { ...assistant, tool_calls: {} }),
    ['invalid_tool_calls /messages/1/tool_calls'],
  ],
  [
    'a call without a function',
    chat(user, { ...assistant, tool_calls: [{ id: '1', type: 'function' }] }),
    ['invalid_tool_calls /messages/1/tool_calls/0'],
  ],
  [
    'arguments that are no string',
    chat(user, { ...assistant, function_call: { name: 'f', arguments: {} } }),
    ['invalid_tool_calls /messages/1/function_call'],
  ],
  [
    'a function without name',
    chat(user, { role: 'function', content: 'x' }, assistant),
    ['message_missing_key /messages/1'],
  ],
  ['tools that are no list', { ...chat(user, assistant), tools: {} }, ['invalid_tools /tools']],
  [
    'a tool without name',
    { ...chat(user, assistant), tools: [{ type: 'function' }] },
    ['invalid_tools /tools/0'],
  ],
  [
    'functions without name',
    { ...chat(user, assistant), functions: [{}] },
    ['invalid_tools /functions'],
  ],
  [
    'parallel_tool_calls as text',
    { ...chat(user, assistant), parallel_tool_calls: 'yes' },
    ['data_type /parallel_tool_calls'],
  ],
  ['no prompt', { completion: 'b' }, ['missing_prompt ']],
  ['no completion', { prompt: 'a' }, ['missing_completion ']],
  ['an empty completion', { prompt: 'a', completion: '' }, ['missing_completion /completion']],
  ['a prompt that is no string', { prompt: ['a'], completion: 'b' }, ['data_type /prompt']],
  [
    'many mistakes at once',
    chat({ content: 1 }, { role: 'x', content: '' }),
    [
      'message_missing_key /messages/0',
      'data_type /messages/0/content',
      'unrecognized_role /messages/1/role',
      'missing_content /messages/1/content',
      'example_missing_assistant_message /messages',
    ],
  ],
])('%s is found', (_, row, expected) => {
  expect(found(row)).toEqual(expected)
})

test("the words are OpenAI's where they are known", () => {
  expect(checkRow(100, chat(assistant, { content: 'x' }, assistant)).errors).toEqual([
    {
      line: 100,
      pointer: '/messages/1',
      check: 'message_missing_key',
      message: "Discriminator 'role' is missing in value",
    },
  ])
})

test.each([
  [{ number: 2, text: '' }, 'empty_line'],
  [{ number: 2, text: '  ' }, 'empty_line'],
  [{ number: 2, text: '{"a":' }, 'invalid_json'],
  [{ number: 2, error: 'is not valid UTF-8' }, 'invalid_utf8'],
])('line %o is %s', (line, check) => {
  expect(checkLine(line).errors).toMatchObject([{ line: 2, pointer: '', check }])
})

test('a file keeps to the format of its first rows', () => {
  expect(checkRow(2, { prompt: 'a', completion: 'b' }, 'chat').errors).toMatchObject([
    { check: 'mixed_formats' },
  ])
  expect(checkRow(2, { a: 'a' }, 'chat').errors).toMatchObject([
    { check: 'missing_messages_list', pointer: '' },
  ])
  expect(detectFormat({ prompt: 1 })).toBe('completion')
})

test('messages stay short, whatever a row holds', () => {
  const long = 'x'.repeat(10 ** 6)
  const { errors } = checkRow(1, chat({ role: long, [long]: 1, content: { a: long } }, assistant))
  expect(errors).toHaveLength(3)
  for (const { message, pointer } of errors)
    expect(message.length + pointer.length).toBeLessThan(500)
})

test('any JSON is judged, never a crash', () => {
  const keys = fc.constantFrom(
    'role',
    'content',
    'tool_calls',
    'weight',
    'name',
    'tool_call_id',
    'function_call',
    'type',
    'x',
  )
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom<unknown>(null, 0, 1, 'assistant', 'tool', 'user', 'text', '', true),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(keys, tie('value')),
    ),
  }))
  fc.assert(
    fc.property(fc.array(value, { maxLength: 4 }), value, (messages, tools) => {
      const { errors } = checkRow(1, { messages, tools })
      for (const { pointer } of errors) expect(pointer).toMatch(/^(\/[^/]+)*$/)
    }),
    { numRuns: 500 },
  )
})

const preference = (change: object = {}) => ({
  input: { messages: [user] },
  preferred_output: [assistant],
  non_preferred_output: [{ ...assistant, content: 'Go away' }],
  ...change,
})
const foundIn = (row: unknown) =>
  checkRow(3, row, undefined, ['preference']).errors.map(
    ({ check, pointer }) => `${check} ${pointer}`,
  )

test('preference rows are right under both names of their outputs', () => {
  expect(foundIn(preference())).toEqual([])
  const tools = [{ type: 'function', function: { name: 'f' } }]
  const called = [user, calls('1'), answer('1')]
  expect(foundIn(preference({ input: { messages: called, tools } }))).toEqual([])
  const { preferred_output, non_preferred_output, input } = preference()
  expect(
    foundIn({
      input,
      preferred_completion: preferred_output,
      non_preferred_completion: non_preferred_output,
    }),
  ).toEqual([])
})

test.each([
  ['no input', { input: undefined }, ['missing_input ']],
  ['an input that is no object', { input: [user] }, ['data_type /input']],
  ['an input without messages', { input: {} }, ['missing_messages_list /input']],
  ['an empty chat', { input: { messages: [] } }, ['missing_messages_list /input/messages']],
  [
    'a message without a role',
    { input: { messages: [{ content: 'x' }, user] } },
    ['message_missing_key /input/messages/0'],
  ],
  [
    'an input that the assistant ends',
    { input: { messages: [user, assistant] } },
    ['last_message_assistant /input/messages/1'],
  ],
  ['bad tools', { input: { messages: [user], tools: 1 } }, ['invalid_tools /input/tools']],
  ['an output that is no list', { preferred_output: assistant }, ['data_type /preferred_output']],
  [
    'two answers on a side',
    { non_preferred_output: [assistant, assistant] },
    ['output_message_count /non_preferred_output'],
  ],
  [
    'an answer of the user',
    { preferred_output: [user] },
    ['output_not_assistant /preferred_output/0/role'],
  ],
  [
    'an empty answer',
    { preferred_output: [{ role: 'assistant', content: '' }] },
    ['missing_content /preferred_output/0/content'],
  ],
  [
    'a tool call for an answer',
    { preferred_output: [{ ...calls('1'), content: null }] },
    ['unsupported_content /preferred_output/0'],
  ],
  ['an unknown key', { better: 1 }, ['unrecognized_key /better']],
])('a preference row with %s is found', (_, change, expected) => {
  expect(foundIn(preference(change))).toEqual(expected)
})

test('a preference row needs both outputs', () => {
  const { preferred_output: _, ...without } = preference()
  expect(foundIn(without)).toEqual(['missing_preferred_output '])
})

test('rows of another method are told so', () => {
  const [error] = checkRow(1, chat(user, assistant), undefined, ['preference']).errors
  expect(error).toMatchObject({
    check: 'format_of_another_method',
    message:
      "is in the fine-tune-chat format, but the specified fine-tuning job is not using 'supervised' as the training method",
  })
  expect(found(preference())).toEqual(['format_of_another_method '])
})
