import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readFolderVocabulary } from '../../../../src/engine/tokenizer/folder-vocabulary.ts'
import { ggufVocabulary } from '../../../../src/engine/tokenizer/gguf-vocabulary.ts'
import { byteLevelAlphabet } from '../../../../src/engine/tokenizer/token-bytes.ts'
import { buildTokenizer } from '../../../../src/engine/tokenizer/tokenizer.ts'
import type { GgufValue } from '../../../../src/engine/weights/gguf.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

/** A byte-level vocabulary without a merge: two control tokens, then every byte. */
const VOCABULARY: Record<string, GgufValue> = {
  model: 'gpt2',
  pre: 'gpt-2',
  tokens: ['<s>', '</s>', ...byteLevelAlphabet()],
  token_type: [3, 3, ...Array<number>(256).fill(1)],
  merges: [],
  bos_token_id: 0,
  eos_token_id: 1,
}

const gguf = (change: Record<string, GgufValue> = {}) =>
  ggufVocabulary(
    {
      version: 3,
      tensors: new Map(),
      metadata: new Map(
        Object.entries({ ...VOCABULARY, ...change }).map(([key, value]) => [
          `tokenizer.ggml.${key}`,
          value,
        ]),
      ),
    },
    'm.gguf',
  )

test('a byte-level tokenizer gives every byte of a text, special tokens none', () => {
  const tokenizer = buildTokenizer(gguf())
  const text = ' é😀\n\u0000'
  const ids = tokenizer.encode(text)
  expect(ids).toEqual([...Buffer.from(text)].map((byte) => byte + 2))
  expect(Buffer.concat(ids.map((id) => tokenizer.bytes(id))).toString()).toBe(text)
  expect(tokenizer.bytes(1)).toHaveLength(0)
  expect(tokenizer.bytes(ids[0]!, true)).toEqual(Uint8Array.of(0x20))
  expect(tokenizer.decode([0, ...ids, 1])).toBe(text)
  expect(tokenizer.bytes(9999)).toHaveLength(0)
})

test('half a code point decodes to the replacement character', () => {
  const tokenizer = buildTokenizer(gguf())
  expect(tokenizer.decode(tokenizer.encode('é').slice(0, 1))).toBe('\ufffd')
})

test('BOS is added only when asked, and only where the file says so', () => {
  expect(buildTokenizer(gguf()).encode('a', { special: true })).toHaveLength(1)
  const adding = buildTokenizer(gguf({ add_bos_token: true }))
  expect(adding.encode('a')).toHaveLength(1)
  expect(adding.encode('a', { special: true })[0]).toBe(0)
})

test('the end of a turn ends a generation too', () => {
  expect(buildTokenizer(gguf({ eot_token_id: 0 })).eos_token_ids).toEqual([1, 0])
})

test.each([
  ['no token list', { tokens: 3 }, 'tokenizer.ggml.tokens is not a list of strings'],
  ['a token that is a number', { tokens: [1] }, 'tokenizer.ggml.tokens is not a list of strings'],
  ['types that are too few', { token_type: [3] }, '258 tokens have 1 token types'],
  [
    'an end outside',
    { eos_token_id: 999 },
    'tokenizer.ggml.eos_token_id is 999, outside the vocabulary',
  ],
  ['another pre-tokenizer', { pre: 'klingon' }, 'pre-tokenizer "klingon" is not supported'],
  ['another kind', { model: 'bert' }, 'a tokenizer of type bert is not supported'],
  ['pieces without scores', { model: 'llama', scores: [0] }, '258 tokens have 1 scores'],
])('a GGUF with %s is refused', (_, change, message) => {
  expect(() => gguf(change)).toThrow(`m.gguf: ${message}`)
})

function folder(files: Record<string, unknown>): string {
  const path = join(temporaryFolder(), 'tiny')
  mkdirSync(path)
  for (const [name, json] of Object.entries(files))
    writeFileSync(join(path, name), typeof json === 'string' ? json : JSON.stringify(json))
  return path
}

test('ends come from the tokenizer first, then from every config', async () => {
  const path = folder({
    'tokenizer.json': gguf().json,
    'tokenizer_config.json': { bos_token: { content: '<s>' }, eos_token: '</s>' },
    'config.json': { eos_token_id: 7 },
    'generation_config.json': { eos_token_id: [8, 1] },
  })
  expect(buildTokenizer(await readFolderVocabulary(path))).toMatchObject({
    bos_token_id: 0,
    bos_token: '<s>',
    eos_token_ids: [1, 8, 7],
    vocab_size: 258,
  })
})

test.each([
  ['no file', undefined, 'tokenizer.json is missing'],
  ['no JSON', '{', 'tokenizer.json is not JSON'],
  ['no object', '3', 'tokenizer.json is not a JSON object'],
  ['no model', {}, 'tokenizer.json has no model with a vocabulary'],
  [
    'another model',
    { model: { type: 'Unigram', vocab: [] } },
    'a model of type Unigram is not supported',
  ],
  [
    'an id that is none',
    { model: { type: 'BPE', vocab: { a: -1 } } },
    'the vocabulary has an id -1',
  ],
  [
    'an id beyond any vocabulary',
    { model: { type: 'BPE', vocab: { a: 2 ** 40 } } },
    'the vocabulary has an id 1099511627776',
  ],
  [
    'an added token without id',
    { added_tokens: [{ content: 'x' }], model: { type: 'BPE', vocab: {} } },
    'added token {"content":"x"} has no content or no id',
  ],
])('a tokenizer.json with %s is refused', async (_, json, message) => {
  const path = folder(json === undefined ? {} : { 'tokenizer.json': json })
  await expect(readFolderVocabulary(path)).rejects.toThrow(message)
})
