import { expect, test } from 'vitest'
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
