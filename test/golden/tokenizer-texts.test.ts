import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { readGgufVocabulary } from '../../src/engine/tokenizer/gguf-vocabulary.ts'
import { buildTokenizer, openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { shared, testModel } from '../support/shared.ts'

interface Row {
  text: string
  smollm2: number[]
  smollm2_text: string
  stories260k: number[]
  stories260k_text: string
}

const fixture = (name: string) => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))
const rows = JSON.parse(readFileSync(fixture('tokenizer-texts.json'), 'utf8')) as Row[]

const smollm2 = testModel('SmolLM2-135M-Instruct.Q4_1.gguf')
describe.skipIf(smollm2.missing)('SmolLM2, from its GGUF', async () => {
  if (smollm2.missing) return
  const tokenizer = await openTokenizer(await openCheckpoint(smollm2.path))

  test('has the ends and the size its file says', () => {
    expect(tokenizer).toMatchObject({
      vocab_size: 49152,
      bos_token_id: 1,
      eos_token_ids: [2],
      bos_token: '<|im_start|>',
      eos_token: '<|im_end|>',
    })
  })

  test.each(rows)('$text', ({ text, smollm2, smollm2_text }) => {
    expect(tokenizer.encode(text)).toEqual(smollm2)
    expect(tokenizer.encode(text, { special: true })).toEqual(smollm2)
    expect(tokenizer.decode(smollm2)).toBe(smollm2_text)
  })

  test('special tokens are left as text when asked', () => {
    const ids = tokenizer.encode('a<|im_end|>b', { parse_special: false })
    expect(ids.some((id) => tokenizer.isSpecial(id))).toBe(false)
    expect(tokenizer.decode(ids)).toBe('a<|im_end|>b')
  })
})

const stories = shared('models/stories260k')
describe.each([
  ['its tokenizer.json', stories, async () => openTokenizer(await openCheckpoint(stories.path))],
  [
    'a GGUF of its vocabulary',
    { missing: false },
    async () => buildTokenizer(await readGgufVocabulary(fixture('stories260k-vocabulary.gguf'))),
  ],
])('stories260k, from %s', async (_, { missing }, open) => {
  if (missing) return test.skip('shared data is missing')
  const tokenizer = await open()

  test('has the ends and the size its file says', () => {
    expect(tokenizer).toMatchObject({ vocab_size: 512, bos_token_id: 1, eos_token_ids: [2] })
  })

  test.each(rows)('$text', ({ text, stories260k, stories260k_text }) => {
    expect(tokenizer.encode(text, { special: true })).toEqual(stories260k)
    expect(tokenizer.encode(text)).toEqual(stories260k.slice(1))
    expect(tokenizer.decode(stories260k)).toBe(stories260k_text)
  })
})
