import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type ChatCoder,
  encodeChatPrompt,
  encodeChatRow,
} from '../../src/engine/tokenizer/assistant-mask.ts'
import { renderChat, type TemplateMessage } from '../../src/engine/tokenizer/chat-template.ts'
import { openTokenizer, type Tokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { shared, testModel } from '../support/shared.ts'

interface Fixture {
  templates: Record<string, string>
  rendered: {
    template: string
    messages: TemplateMessage[]
    tools?: unknown[]
    add_generation_prompt: boolean
    text?: string
    error?: string
  }[]
  masked: { messages: TemplateMessage[]; tokens: number[]; mask: number[] }[]
}

const fixture: Fixture = JSON.parse(
  readFileSync(new URL('fixtures/chat-templates.json', import.meta.url), 'utf8'),
)

const tokens = { bos_token: '<s>', eos_token: '</s>' }

test.each(fixture.rendered.map((row, i) => ({ ...row, i })))(
  '$template renders chat $i as transformers does',
  ({ template, messages, tools, add_generation_prompt, text, error }) => {
    const render = () =>
      renderChat(fixture.templates[template], messages, { ...tokens, add_generation_prompt, tools })
    if (error === undefined) expect(render()).toBe(text)
    else expect(render).toThrow(error)
  },
)

/** Messages with every kind of white space and letter where a border could go wrong. */
const content = fc
  .array(fc.constantFrom(' ', '\n', 'a', 'Yes', '7', '<|im_end|>', '😀', '\t', 'é', '. '), {
    minLength: 1,
    maxLength: 6,
  })
  .map((parts) => parts.join(''))
const turn = fc.record({
  role: fc.constantFrom('user', 'assistant'),
  content,
  weight: fc.constantFrom(0, 1),
})

function expectNoFewerTokens(tokenizer: Tokenizer) {
  const letter = fc.constantFrom('\u0000', 'e\u0301', '가', '\u212a', '\t'.repeat(40), ' ', 'the ')
  const text = fc.array(fc.oneof(content, letter), { maxLength: 12 }).map((parts) => parts.join(''))
  fc.assert(
    fc.property(text, (text) => {
      const ids = tokenizer.encode(text)
      expect(tokenizer.fewestTokens(text)).toBeLessThanOrEqual(ids.length)
    }),
    { numRuns: 300 },
  )
  expect(tokenizer.fewestTokens('word '.repeat(100_000))).toBeGreaterThan(1000)
  expect(tokenizer.fewestTokens('a'.repeat(100_000))).toBeGreaterThan(10_000)
}

function expectPromptsToBePrefixes(coder: ChatCoder, messages: TemplateMessage[]) {
  const row = encodeChatRow(coder, { messages })
  for (const [i, { role, weight }] of messages.entries()) {
    if (role !== 'assistant' || i === 0) continue
    const prompt = encodeChatPrompt(coder, { messages: messages.slice(0, i) })
    // The row is cut after what is learned last.
    if (prompt.length > row.tokens.length) continue
    expect(row.tokens.slice(0, prompt.length)).toEqual(prompt)
    if (weight !== 0) expect(row.weights[prompt.length]).toBe(1)
  }
}

const smollm2 = testModel('SmolLM2-135M-Instruct.Q4_1.gguf')
describe.skipIf(smollm2.missing)('SmolLM2', async () => {
  if (smollm2.missing) return
  const checkpoint = await openCheckpoint(smollm2.path)
  const tokenizer = await openTokenizer(checkpoint)
  const coder: ChatCoder = { tokenizer, chat_template: checkpoint.chat_template }

  test('no text has fewer tokens than is said', () => expectNoFewerTokens(tokenizer))

  test.each(fixture.masked.map((row, i) => ({ ...row, i })))(
    'the mask of chat $i is the one transformers finds by generation blocks',
    ({ messages, tokens, mask }) => {
      expect(encodeChatRow(coder, { messages })).toEqual({ tokens, weights: mask, skipped: 0 })
    },
  )

  test('the prompt that serving sends is a prefix of the row, whatever the messages', () => {
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1, maxLength: 6 }), (turns) =>
        expectPromptsToBePrefixes(coder, [{ role: 'user', content: 'Hi' }, ...turns]),
      ),
      { numRuns: 300 },
    )
  })

  test('the default system prompt is in rows as it is in serving', () => {
    const { tokens } = encodeChatRow(coder, { messages: fixture.masked[0]!.messages })
    const text = tokens.filter((id) => !tokenizer.isSpecial(id))
    expect(tokenizer.decode(text)).toMatch(/^system\nYou are a helpful AI assistant named SmolLM/)
  })

  test('a message of weight 0 is read but not learned', () => {
    const messages = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'no', weight: 0 },
      { role: 'user', content: 'b' },
      { role: 'assistant', content: 'yes', weight: 1 },
    ]
    const { tokens, weights } = encodeChatRow(coder, { messages })
    const learned = tokens.filter((_, i) => weights[i] === 1)
    expect(learned).toEqual(tokenizer.encode('yes<|im_end|>'))
  })

  test('a chat that the assistant opens is learned from its first word on', () => {
    const messages = [{ role: 'assistant', content: 'Welcome!' }]
    const { tokens, weights, skipped } = encodeChatRow(coder, { messages })
    expect(skipped).toBe(0)
    expect(tokens.filter((_, i) => weights[i] === 1)).toEqual(
      tokenizer.encode('Welcome!<|im_end|>'),
    )
  })
})

const stories = shared('models/stories260k')
describe.skipIf(stories.missing)('a tokenizer in the manner of llama 2', async () => {
  if (stories.missing) return
  const tokenizer = await openTokenizer(await openCheckpoint(stories.path))
  const coder = { tokenizer, chat_template: fixture.templates.zephyr }

  test('the prompt that serving sends is a prefix of the row, whatever the messages', () => {
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1, maxLength: 6 }), (turns) =>
        expectPromptsToBePrefixes(coder, [{ role: 'user', content: 'Hi' }, ...turns]),
      ),
      { numRuns: 300 },
    )
  })

  test('no text has fewer tokens than is said', () => expectNoFewerTokens(tokenizer))

  test('a template that ends no turn gets an end after the last', () => {
    const chat_template =
      "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    const messages = [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Yes' },
    ]
    const { tokens, weights } = encodeChatRow({ tokenizer, chat_template }, { messages })
    const learned = tokens.filter((_, i) => weights[i] === 1)
    expect(learned.at(-1)).toBe(2)
    expect(learned.slice(0, -1)).toEqual(tokenizer.encode(' Yes\n', { continues: true }))
  })

  test('text that goes on from other text keeps its bytes', () => {
    fc.assert(
      fc.property(content, (text) => {
        const ids = tokenizer.encode(text, { continues: true })
        expect(Buffer.concat(ids.map((id) => tokenizer.bytes(id))).toString()).toBe(text)
      }),
    )
  })

  test('a turn that the template shows otherwise later is counted, not learned wrongly', () => {
    const chat_template =
      "{% for m in messages %}{{ m.role ~ ':' ~ (m.content if loop.last or m.role == 'user' else '...') ~ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    const messages = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'first' },
      { role: 'user', content: 'b' },
      { role: 'assistant', content: 'second' },
    ]
    const { tokens, weights, skipped } = encodeChatRow({ tokenizer, chat_template }, { messages })
    expect(skipped).toBe(1)
    expect(tokenizer.decode(tokens.filter((_, i) => weights[i] === 1))).toBe('second')
  })
})
