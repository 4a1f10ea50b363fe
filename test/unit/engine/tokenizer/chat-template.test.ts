import { expect, test } from 'vitest'
import { renderChat } from '../../../../src/engine/tokenizer/chat-template.ts'

const user = { role: 'user', content: 'Hi' }
const options = { add_generation_prompt: true }

test('a model without a template is told so', () => {
  expect(() => renderChat(undefined, [user], options)).toThrow(
    expect.objectContaining({ status: 400, param: 'model', code: 'chat_template_missing' }),
  )
})

test('a template that refuses the messages speaks for itself', () => {
  expect(() => renderChat("{{ raise_exception('No system, please') }}", [user], options)).toThrow(
    expect.objectContaining({
      status: 400,
      param: 'messages',
      message: "The model's chat template refuses these messages: No system, please",
    }),
  )
})

test('a template that is no Jinja is not the caller’s fault', () => {
  expect(() => renderChat('{% if %}', [user], options)).toThrow(
    "The model's chat template cannot be parsed.",
  )
})

test('text parts are joined, null is empty, weights stay out', () => {
  const template = '{% for m in messages %}[{{ m.content }}{{ m.weight is defined }}]{% endfor %}'
  const messages = [
    {
      role: 'user',
      content: [
        { type: 'text', text: 'a' },
        { type: 'text', text: 'b' },
      ],
    },
    { role: 'assistant', content: null, weight: 1 },
  ]
  expect(renderChat(template, messages, options)).toBe('[abfalse][false]')
})

test('arguments of a tool call reach the template as an object', () => {
  const template = '{{ messages[0].tool_calls[0].function.arguments | tojson }}'
  const call = (text: string) => [
    { role: 'assistant', tool_calls: [{ id: '1', function: { name: 'f', arguments: text } }] },
  ]
  expect(renderChat(template, call('{"a": 1}'), options)).toBe('{"a": 1}')
  expect(renderChat(template, call('{"a"'), options)).toBe('"{\\"a\\""')
})

test('a template reaches nothing of the program around it', () => {
  for (const path of ['constructor', '__proto__', 'process', 'globalThis', 'require'])
    expect(
      renderChat(`{{ ${path} is defined }}{{ messages.${path} is defined }}`, [user], options),
    ).toBe('falsefalse')
})

test('a template that does not end is stopped, and the next one runs', () => {
  const endless = '{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}'
  expect(() => renderChat(endless, [user], options)).toThrow(
    expect.objectContaining({ status: 400, param: 'messages', code: 'chat_template_timeout' }),
  )
  expect(renderChat('{{ messages[0].content }}', [user], options)).toBe('Hi')
})
