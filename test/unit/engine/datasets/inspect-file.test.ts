import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { TextSet } from '../../../../src/engine/datasets/compact.ts'
import { encodePrompt } from '../../../../src/engine/datasets/completion-rows.ts'
import { encodeFile, rowEncoder } from '../../../../src/engine/datasets/encode.ts'
import { inspectFile } from '../../../../src/engine/datasets/inspect-file.ts'
import {
  type PreferenceExample,
  preferenceEncoder,
} from '../../../../src/engine/datasets/preference-example.ts'
import { encodeChatPrompt } from '../../../../src/engine/tokenizer/assistant-mask.ts'
import { openTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { shared } from '../../../support/shared.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

function written(rows: readonly unknown[]): string {
  const file = join(temporaryFolder(), 'f.jsonl')
  const text = rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row)))
  writeFileSync(file, text.join('\n'))
  return file
}

const chat = (content: string) => ({
  messages: [
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content },
  ],
})

test('every mistake is counted, the first hundred are kept', async () => {
  const rows = Array.from({ length: 150 }, () => ({ messages: [{ content: 'x' }] }))
  const report = await inspectFile(written(rows), { max_sequence_length: 10 })
  expect(report).toMatchObject({ format: 'chat', examples: 150, error_count: 300, tokens: 0 })
  expect(report.errors).toHaveLength(100)
  expect(report.errors.at(-1)!.line).toBe(50)
})

test('mistakes of every kind come together in the order of their lines', async () => {
  const rows = [chat('a'), '', '{', '[]', { prompt: 'a', completion: 'b' }, { a: 1 }, chat('b')]
  const report = await inspectFile(written(rows), { max_sequence_length: 10 })
  expect(report.errors.map(({ line, check }) => [line, check])).toEqual([
    [2, 'empty_line'],
    [3, 'invalid_json'],
    [4, 'data_type'],
    [5, 'mixed_formats'],
    [6, 'missing_messages_list'],
  ])
})

test('a mistake tells nothing that no database keeps: NUL, half of a surrogate pair', async () => {
  const message = { role: 'user', content: 'Hi', 'a\0b': 1, [`${'k'.repeat(199)}😀`]: 1 }
  const { errors } = await inspectFile(
    written([{ messages: [message, { role: 'assistant', content: 'a' }] }]),
    { max_sequence_length: 10 },
  )
  expect(errors.map(({ pointer }) => pointer)).toEqual([
    '/messages/0/a\ufffdb',
    `/messages/0/${'k'.repeat(199)}\ufffd`,
  ])
})

test('duplicates are a warning', async () => {
  const report = await inspectFile(written([chat('a'), chat('b'), chat('a')]), {
    max_sequence_length: 10,
  })
  expect(report.error_count).toBe(0)
  expect(report.warnings).toEqual(['1 example(s) are exact duplicates of earlier ones.'])
})

test('what is remembered of each row is a few bytes', async () => {
  const rows = 300_000
  const texts = Array.from({ length: rows }, (_, i) =>
    JSON.stringify({ prompt: 'a', completion: String(i % (rows - 7)) }),
  )
  const seen = new TextSet()
  const before = process.memoryUsage().arrayBuffers
  let twice = 0
  for (const text of texts) if (!seen.add(text)) twice++
  const held = process.memoryUsage().arrayBuffers - before
  expect(twice).toBe(7)
  expect(held / rows).toBeLessThan(64)
  expect(seen.add(texts[0]!)).toBe(false)
})

test('an empty file has no examples', async () => {
  const report = await inspectFile(written([]), { max_sequence_length: 10 })
  expect(report).toMatchObject({ format: undefined, examples: 0, error_count: 0 })
})

test('a file that is not there throws', async () => {
  const file = join(temporaryFolder(), 'none')
  await expect(inspectFile(file, { max_sequence_length: 10 })).rejects.toThrow('ENOENT')
})

const stories = shared('models/stories260k')
describe.skipIf(stories.missing)('with a tokenizer', async () => {
  if (stories.missing) return
  const tokenizer = await openTokenizer(await openCheckpoint(stories.path))
  const options = { tokenizer, chat_template: undefined, max_sequence_length: 512 }
  const chat_template =
    "{% for m in messages %}{{ bos_token ~ m.role ~ '\n' ~ m.content ~ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ bos_token ~ 'assistant\n' }}{% endif %}"

  test('a completion row is its prompt, its completion and an end', async () => {
    const file = written([{ prompt: 'Once upon', completion: ' a time' }])
    const [example] = await encodeFile(file, rowEncoder(options))
    const whole = tokenizer.encode('Once upon a time', { special: true })
    expect([...example!.tokens]).toEqual([...whole, 2])
    expect([...example!.weights]).toEqual([0, 0, 0, 1, 1, 1])
    expect(example!.line).toBe(1)
  })

  test.each([
    ['Once upon', ' a time'],
    ['Once upon a', 'bout'],
    ['Q: ', 'A'],
    ['', 'Once'],
    ['line\n', '\nline'],
    ['😀', '😀'],
  ])('the prompt %j as serving sends it is a prefix of the row', async (prompt, completion) => {
    const [example] = await encodeFile(written([{ prompt, completion }]), rowEncoder(options))
    const served = encodePrompt(tokenizer, prompt)
    expect([...example!.tokens.slice(0, served.length)]).toEqual(served)
    expect([...example!.weights]).toEqual(
      [...example!.tokens].map((_, i) => (i < served.length ? 0 : 1)),
    )
    expect(tokenizer.decode([...example!.tokens])).toBe(prompt + completion)
  })

  test('inspection counts what encoding gives', async () => {
    const file = written(['one', 'two words', 'and three words'].map(chat))
    const report = await inspectFile(file, { ...options, chat_template })
    const examples = await encodeFile(file, rowEncoder({ ...options, chat_template }))
    const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0)
    expect(report).toMatchObject({
      examples: 3,
      error_count: 0,
      tokens: sum(examples.map(({ tokens }) => tokens.length)),
      trained_tokens: sum(examples.map(({ weights }) => sum([...weights]))),
      lengths: Int32Array.from(examples, ({ tokens }) => tokens.length),
    })
    expect(report.trained_tokens).toBeGreaterThan(0)
  })

  test('long rows are cut and counted; one of which nothing is left to learn is an error', async () => {
    const file = written([
      { prompt: 'a', completion: ' b' },
      { prompt: 'a', completion: ' b c d e f g h i j k' },
      { prompt: 'a b c d e f g h i j k l m', completion: ' n' },
    ])
    const report = await inspectFile(file, { ...options, max_sequence_length: 8 })
    expect(report.truncated).toBe(2)
    expect([...report.lengths]).toEqual([expect.any(Number), 8, 8])
    expect(report.warnings).toEqual(['2 example(s) are longer than 8 tokens and were truncated.'])
    expect(report.errors).toMatchObject([{ line: 3, check: 'nothing_to_learn' }])
  })

  test('long rows are left out or refused where the job says so', async () => {
    const file = written([
      { prompt: 'a', completion: ' b' },
      { prompt: 'a', completion: ' b c d e f g h i j k' },
      { prompt: 'b', completion: ' c' },
    ])
    const some = { ...options, max_sequence_length: 8 }
    const dropped = await inspectFile(file, { ...some, truncation: 'drop' })
    expect(dropped).toMatchObject({ examples: 2, dropped: 1, truncated: 0, error_count: 0 })
    expect(dropped.warnings).toEqual(['1 example(s) are longer than 8 tokens and were dropped.'])
    expect(dropped.lengths).toHaveLength(2)
    const examples = await encodeFile(file, rowEncoder(some), 'drop')
    expect(examples.map(({ line }) => line)).toEqual([1, 3])

    const refused = await inspectFile(file, { ...some, truncation: 'error' })
    expect(refused.errors).toEqual([
      { line: 2, pointer: '', check: 'too_long', message: 'is longer than 8 tokens' },
    ])
  })

  test('of a plain text every token is learned but the first, and its end', async () => {
    const file = written([{ text: 'Once upon a time' }])
    const [example] = await encodeFile(file, rowEncoder(options))
    expect([...example!.tokens]).toEqual([
      ...tokenizer.encode('Once upon a time', { special: true }),
      2,
    ])
    expect([...example!.weights]).toEqual([...example!.tokens].map((_, i) => (i === 0 ? 0 : 1)))
  })

  test('a preference row is the chat with each answer, and the answers alone are learned', async () => {
    const input = { messages: [...chat('x').messages, { role: 'user', content: 'And?' }] }
    const output = (content: string) => [{ role: 'assistant', content }]
    const [one, two] = ['miaow', 'woof woof']
    const row = { input, preferred_output: output(one), non_preferred_output: output(two) }
    const coder = { ...options, chat_template }
    const [example] = (await encodeFile(
      written([row]),
      preferenceEncoder(coder),
    )) as PreferenceExample[]
    const { tokens, weights, preferred } = example!
    const learned = [...tokens].map((token, i) => (weights[i] ? token : -1))
    const textOf = (some: number[]) => tokenizer.decode(some.filter((token) => token >= 0))
    expect(textOf(learned.slice(0, preferred))).toBe(one)
    expect(textOf(learned.slice(preferred))).toBe(two)
    const prompt = encodeChatPrompt(coder, input)
    expect([...tokens.slice(0, prompt.length)]).toEqual(prompt)
    expect([...tokens.slice(preferred, preferred + prompt.length)]).toEqual(prompt)

    // Each text is cut by itself.
    const short = { ...coder, max_sequence_length: prompt.length + 2 }
    const cut = preferenceEncoder(short).encode(1, row, 'preference')
    expect(cut).toMatchObject({ truncated: true, preferred: prompt.length + 2 })
    expect(cut.tokens).toHaveLength(2 * (prompt.length + 2))
    const none = { ...coder, max_sequence_length: prompt.length }
    const lost = preferenceEncoder(none).encode(1, row, 'preference')
    expect(lost.truncated).toBe(true)
    expect(new Set(lost.weights)).toEqual(new Set([0]))
  })

  test('the first token of a row is never learned, for nothing predicts it', async () => {
    const bare = { ...tokenizer, encode: (text: string) => tokenizer.encode(text) }
    const file = written([{ prompt: '', completion: 'Once' }])
    const [example] = await encodeFile(file, rowEncoder({ ...options, tokenizer: bare }))
    expect(example!.weights[0]).toBe(0)
  })

  test('rows that the template refuses are mistakes of these rows', async () => {
    const refusing = `{% if messages|length > 2 %}{{ raise_exception('Too long') }}{% endif %}${chat_template}`
    const three = { messages: [{ role: 'system', content: 'x' }, ...chat('a').messages] }
    const report = await inspectFile(written([chat('a'), three]), {
      ...options,
      chat_template: refusing,
    })
    expect(report.errors).toEqual([
      {
        line: 2,
        pointer: '/messages',
        check: 'chat_template',
        message: "The model's chat template refuses these messages: Too long",
      },
    ])
  })

  test('chat rows for a model without a template are the model’s fault', async () => {
    await expect(inspectFile(written([chat('a')]), options)).rejects.toMatchObject({
      status: 400,
      code: 'chat_template_missing',
    })
  })

  test('a file with a mistake is not encoded', async () => {
    await expect(encodeFile(written([{ prompt: 'a' }]), rowEncoder(options))).rejects.toThrow(
      "Line 1 is missing the key 'completion'",
    )
  })
})
