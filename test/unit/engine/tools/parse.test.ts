import { expect, test } from 'vitest'
import { createToolParser } from '../../../../src/engine/tools/parse.ts'
import type { ToolSyntax } from '../../../../src/engine/tools/syntax.ts'

/** The text in pieces of so many letters. */
function read(syntax: ToolSyntax, text: string, size: number) {
  const parser = createToolParser(syntax, ['f', 'g'])
  const parts = []
  for (let i = 0; i < text.length; i += size) parts.push(parser.push(text.slice(i, i + size)))
  parts.push(parser.end())
  return {
    content: parts.map(({ content }) => content).join(''),
    calls: parts.flatMap(({ calls }) => calls),
  }
}

const f = { name: 'f', arguments: '{"a":1}' }
const g = { name: 'g', arguments: '{}' }
const call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'

test.each<[string, ToolSyntax, string, ReturnType<typeof read>]>([
  ['text alone', 'hermes', 'a < b', { content: 'a < b', calls: [] }],
  ['a call', 'hermes', call, { content: '', calls: [f] }],
  [
    'text and two calls',
    'hermes',
    `Let me see.${call}\n<tool_call>{"name": "g", "arguments": {}}</tool_call>`,
    { content: 'Let me see.', calls: [f, g] },
  ],
  [
    'a call that was cut off',
    'hermes',
    call.slice(0, 20),
    { content: call.slice(0, 20), calls: [] },
  ],
  [
    'a call of what there is not',
    'hermes',
    '<tool_call>{"name": "h"}</tool_call>',
    { content: '<tool_call>{"name": "h"}</tool_call>', calls: [] },
  ],
  [
    'two calls',
    'mistral',
    '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
    { content: '', calls: [f, g] },
  ],
  ['a list', 'mistral', '[1, 2]', { content: '[1, 2]', calls: [] }],
  ['text', 'mistral', 'So it is.', { content: 'So it is.', calls: [] }],
  ['a call', 'llama', '{"name": "f", "parameters": {"a": 1}}', { content: '', calls: [f] }],
  [
    'a call behind its tag',
    'llama',
    '<|python_tag|>{"name": "f", "parameters": {"a": 1}}',
    { content: '', calls: [f] },
  ],
  ['other JSON', 'llama', '{"a": 1}', { content: '{"a": 1}', calls: [] }],
])('%s (%s) is found, however it comes', (_, syntax, text, expected) => {
  for (const size of [1, 3, 7, text.length]) expect(read(syntax, text, size)).toEqual(expected)
})

test('text before a call is told before the call comes', () => {
  const parser = createToolParser('hermes', ['f'])
  expect(parser.push('Hello <')).toEqual({ content: 'Hello ', calls: [] })
  expect(parser.push('b>')).toEqual({ content: '<b>', calls: [] })
})
