import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { encodeWords } from '../../../../src/engine/datasets/encode-words.ts'
import { openTokenizer, type Tokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../../../src/engine/weights/checkpoint.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyEncoder } from '../../../support/tiny-encoder.ts'

const folder = suiteFolder()
let tokenizer: Tokenizer

beforeAll(async () => {
  tokenizer = await openTokenizer(
    await openCheckpoint(await writeTinyEncoder(join(folder, 'tiny'))),
  )
})

test('words one by one are the tokens of the whole text', () => {
  const text = 'Abc de, fg!  H'
  const { texts, words, firsts } = encodeWords(tokenizer, text, 38)
  expect(texts.ids).toEqual(tokenizer.encodeTexts(text, undefined, 38).ids)
  expect(words).toHaveLength(6)
  expect(firsts).toEqual([1, 4, 6, 7, 9, 10])
  expect(texts.truncated).toBe(false)
})

test('what does not fit is cut by whole words', () => {
  const { texts, firsts } = encodeWords(tokenizer, 'abc defgh i', 7)
  expect(texts).toMatchObject({ truncated: true })
  expect(texts.ids).toHaveLength(5)
  expect(firsts).toEqual([1, undefined, undefined])
})

test('two texts have kinds of tokens, and the longer one is cut', () => {
  const { ids, types, truncated } = tokenizer.encodeTexts('ab', 'cdef', 7)
  expect(types).toEqual([0, 0, 0, 0, 1, 1, 1])
  expect(ids.at(-1)).toBe(3)
  expect(truncated).toBe(true)
})
