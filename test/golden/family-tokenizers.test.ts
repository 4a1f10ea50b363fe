// Tokenizers and templates as Qwen's and GPT-2's are, against tokenizers and transformers. Fixtures by family_tokenizers.py.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { encodeChatPrompt, encodeChatRow } from '../../src/engine/tokenizer/assistant-mask.ts'
import { renderChat, type TemplateMessage } from '../../src/engine/tokenizer/chat-template.ts'
import { readFolderVocabulary } from '../../src/engine/tokenizer/folder-vocabulary.ts'
import { readGgufVocabulary } from '../../src/engine/tokenizer/gguf-vocabulary.ts'
import { buildTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'

type Name = 'qwen' | 'gpt2'
type Text = { text: string } & Record<Name, number[]> & Record<`${Name}_text`, string>

interface Chat {
  template: string
  messages: TemplateMessage[]
  tools?: unknown[]
}

const fixture = (name: string) =>
  fileURLToPath(new URL(`fixtures/family-tokenizers/${name}`, import.meta.url))

const golden = JSON.parse(readFileSync(fixture('golden.json'), 'utf8')) as {
  texts: Text[]
  templates: Record<string, string>
  rendered: (Chat & { add_generation_prompt: boolean; text: string })[]
  masked: (Chat & { tokens: number[]; mask: number[] })[]
}

const open = {
  folder: async (name: Name) => buildTokenizer(await readFolderVocabulary(fixture(name))),
  GGUF: async (name: Name) => buildTokenizer(await readGgufVocabulary(fixture(`${name}.gguf`))),
}

describe.each([
  ['qwen', 'folder'],
  ['qwen', 'GGUF'],
  ['gpt2', 'folder'],
  ['gpt2', 'GGUF'],
] as const)('%s, from its %s', async (name, source) => {
  const tokenizer = await open[source](name)

  test.each(golden.texts)('$text', (row) => {
    expect(tokenizer.encode(row.text, { special: true })).toEqual(row[name])
    expect(tokenizer.decode(row[name])).toBe(row[`${name}_text`])
  })

  test('the end of a text is the one its file names', () => {
    const end = name === 'qwen' ? '<|im_end|>' : '<|endoftext|>'
    expect(tokenizer.eos_token).toBe(end)
    expect(tokenizer.eos_token_ids).toEqual(tokenizer.encode(end))
  })
})

describe('chat templates in the manner of Qwen', async () => {
  const tokenizer = await open.folder('qwen')

  test.each(golden.rendered.map((row, i) => ({ ...row, i })))(
    '$template renders chat $i as transformers does',
    ({ template, messages, tools, add_generation_prompt, text }) => {
      const options = { add_generation_prompt, tools }
      expect(renderChat(golden.templates[template], messages, options)).toBe(text)
    },
  )

  test.each(golden.masked.map((row, i) => ({ ...row, i })))(
    'the mask of chat $i is the one transformers finds by generation blocks',
    ({ template, messages, tokens, mask }) => {
      const coder = { tokenizer, chat_template: golden.templates[template] }
      expect(encodeChatRow(coder, { messages })).toEqual({ tokens, weights: mask, skipped: 0 })
    },
  )

  const thought = '<think>\nWhy not?\n</think>\n\nYes.'
  const turn = (answer: string) => [
    { role: 'user', content: 'May I?' },
    { role: 'assistant', content: answer },
  ]

  test('thoughts that Qwen 3 shows in the last turn alone are learned there, after the prompt that serving sends', () => {
    const coder = { tokenizer, chat_template: golden.templates.qwen3 }
    const messages = [...turn(thought), ...turn(thought)]
    const { tokens, weights } = encodeChatRow(coder, { messages })
    const prompt = encodeChatPrompt(coder, { messages: messages.slice(0, 3) })
    expect(tokens.slice(0, prompt.length)).toEqual(prompt)
    const last = tokens.filter((_, i) => weights[i] === 1 && i >= prompt.length)
    expect(tokenizer.decode(last)).toBe(thought)
    expect(last.at(-1)).toBe(tokenizer.eos_token_ids[0])
  })
})
