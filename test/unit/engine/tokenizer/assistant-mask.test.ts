import { expect, test } from 'vitest'
import { chatOf } from '../../../../src/engine/datasets/messages.ts'
import { encodeChatPrompt, encodeChatRow } from '../../../../src/engine/tokenizer/assistant-mask.ts'
import { byteLevelAlphabet } from '../../../../src/engine/tokenizer/token-bytes.ts'
import { buildTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'

const tokenizer = buildTokenizer({
  json: {
    added_tokens: [{ id: 256, content: '</s>', special: true }],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(byteLevelAlphabet().map((letter, byte) => [letter, byte])),
      merges: [],
    },
  },
  bos_token: undefined,
  eos_token: '</s>',
  eos_token_ids: [],
})

const plain =
  '{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}'
/** Earlier turns are shown otherwise once more follow. */
const hiding =
  "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last or m.role == 'user' else '…' }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
/** A turn knows how many came before it: none can be shown without the others. */
const counting =
  '{% for m in messages %}<{{ m.role }}>{{ loop.index }} {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}'

const chat = (turns: number) => ({
  messages: Array.from({ length: turns }, (_, i) => ({
    role: i % 2 === 0 ? 'user' : 'assistant',
    content: 'abc'[i % 3]!,
  })),
})

test('a chat of thousands of turns is rendered in seconds, each of its turns learned', () => {
  const coder = { tokenizer, chat_template: plain }
  const before = performance.now()
  const { tokens, weights, skipped } = encodeChatRow(coder, chat(3000))
  const prompt = encodeChatPrompt(coder, chat(2999))
  expect(performance.now() - before).toBeLessThan(20_000)
  expect(skipped).toBe(0)
  expect(weights.reduce((a, b) => a + b, 0)).toBe(1500 * 2)
  expect(tokens.slice(0, prompt.length)).toEqual(prompt)
  expect(weights[prompt.length]).toBe(1)
}, 120_000)

test.each([
  ['plain', plain, 0],
  ['hiding', hiding, 9],
  ['counting', counting, 0],
])(
  'a %s template: the prompts of a chat of 20 are prefixes of its row',
  (_, chat_template, lost) => {
    const coder = { tokenizer, chat_template }
    const row = encodeChatRow(coder, chat(20))
    expect(row.skipped).toBe(lost)
    for (let turns = lost === 0 ? 1 : 19; turns < 20; turns += 2) {
      const prompt = encodeChatPrompt(coder, chat(turns))
      expect(row.tokens.slice(0, prompt.length)).toEqual(prompt)
      expect(row.weights[prompt.length]).toBe(1)
    }
  },
)

test.each([hiding, counting])(
  'a template that needs the whole chat for each turn gets only so many of them',
  (chat_template) => {
    const coder = { tokenizer, chat_template }
    const refused = expect.objectContaining({
      status: 400,
      param: 'messages',
      code: 'chat_template_timeout',
    })
    expect(() => encodeChatRow(coder, chat(3000))).toThrow(refused)
    expect(() => encodeChatPrompt(coder, chat(3001))).toThrow(refused)
  },
  120_000,
)

test('who cannot use so many tokens hears of it before the spans are looked for', () => {
  const coder = { tokenizer, chat_template: plain }
  const told: number[] = []
  const stop = (tokens: number) => {
    told.push(tokens)
    throw new Error('stop')
  }
  expect(() => encodeChatPrompt(coder, chat(3001), stop)).toThrow('stop')
  const all = encodeChatPrompt(coder, chat(3001)).length
  expect(told).toHaveLength(1)
  expect(told[0]).toBeGreaterThan(all / 8)
  expect(told[0]).toBeLessThanOrEqual(all)
}, 60_000)

/** As Llama 3 has it: what can be called first, calls and their answers as turns of their own. */
const withTools = `{%- if tools %}<tools>{% for t in tools %}{{ t.function.name }}: {{ t.function.parameters | tojson }}{% endfor %}</s>{% endif -%}
{%- for m in messages -%}
<{{ m.role }}>{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% else %}{{ m.content }}{% endif %}</s>
{%- endfor -%}
{%- if add_generation_prompt %}<assistant>{% endif %}`

test('with tools that the template does not know, a row is still the prompt that serving makes, and the answer', () => {
  const coder = {
    tokenizer,
    chat_template: `{%- for m in messages -%}<{{ m.role }}>{{ m.content }}</s>{%- endfor -%}{%- if add_generation_prompt %}<assistant>{% endif %}`,
  }
  const tools = [{ type: 'function', function: { name: 'add', parameters: { type: 'object' } } }]
  const call = { name: 'add', arguments: '{"a": 1}' }
  const messages = [
    { role: 'system', content: 'You add.' },
    { role: 'user', content: '1 + 2?' },
    {
      role: 'assistant',
      content: null,
      tool_calls: [{ id: '1', type: 'function', function: call }],
    },
    { role: 'tool', tool_call_id: '1', content: [{ type: 'text', text: '3' }] },
    { role: 'assistant', content: 'It is 3.' },
  ]
  const row = encodeChatRow(coder, { messages, tools })
  const first = encodeChatPrompt(coder, { messages: messages.slice(0, 2), tools })
  const second = encodeChatPrompt(coder, { messages: messages.slice(0, 4), tools })
  const answer = tokenizer.encode('It is 3.</s>')
  expect(row.tokens).toEqual([...second, ...answer])
  expect(row.tokens.slice(0, first.length)).toEqual(first)
  const learned = row.tokens.filter((_, i) => row.weights[i] === 1)
  expect(tokenizer.decode(learned)).toContain('{"name": "add", "arguments": {"a": 1}}')
  expect(tokenizer.decode(first)).toContain('"name":"add"')
  expect(tokenizer.decode(second)).toContain('<tool_response>')

  // A weight is still the message's own.
  const unlearned = messages.map((m) => (m.tool_calls ? { ...m, weight: 0 } : m))
  expect(encodeChatRow(coder, { messages: unlearned, tools }).weights.indexOf(1)).toBe(
    second.length,
  )
})

test('with tools a row is the prompt that serving makes, and the answer', () => {
  const coder = { tokenizer, chat_template: withTools }
  const tools = [
    { type: 'function', function: { name: 'add', parameters: { type: 'object', a: 'number' } } },
  ]
  const call = { name: 'add', arguments: '{"a": 1, "b": 2}' }
  const messages = [
    { role: 'user', content: '1 + 2?' },
    {
      role: 'assistant',
      content: null,
      tool_calls: [{ id: '1', type: 'function', function: call }],
    },
    { role: 'tool', tool_call_id: '1', content: '3' },
    { role: 'assistant', content: 'It is 3.' },
  ]
  const row = encodeChatRow(coder, { messages, tools })
  const first = encodeChatPrompt(coder, { messages: messages.slice(0, 1), tools })
  const called = tokenizer.encode('add({"a": 1, "b": 2})</s>')
  const second = encodeChatPrompt(coder, { messages: messages.slice(0, 3), tools })
  const answer = tokenizer.encode('It is 3.</s>')
  expect(row.tokens).toEqual([...second, ...answer])
  expect(second.slice(0, first.length + called.length)).toEqual([...first, ...called])
  expect(tokenizer.decode(first)).toContain('add: {"type": "object", "a": "number"}')
  expect(row.weights).toEqual([
    ...first.map(() => 0),
    ...called.map(() => 1),
    ...second.slice(first.length + called.length).map(() => 0),
    ...answer.map(() => 1),
  ])

  // The same chat as it was written before there were tools.
  const old = chatOf({
    functions: tools.map((tool) => tool.function),
    messages: [
      messages[0],
      { role: 'assistant', content: null, function_call: call },
      { role: 'function', name: 'add', content: '3' },
      messages[3],
    ],
  })
  expect(encodeChatRow(coder, old)).toEqual(row)
})
