// Models with different vocabularies against mergekit (test/golden/merge_tokens.py): the same tokens, and of each the same
// rows. Ids of tokens that are added to a base are compared by their tokens: mergekit numbers them as its hash table has them.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { keyOf, namedModels, parseMergeConfig } from '../../src/engine/merge/config.ts'
import { merge } from '../../src/engine/merge/merge.ts'
import { readMergeText } from '../../src/engine/merge/yaml.ts'
import { readFolderVocabulary } from '../../src/engine/tokenizer/folder-vocabulary.ts'
import { openTokenizer } from '../../src/engine/tokenizer/tokenizer.ts'
import { openCheckpoint } from '../../src/engine/weights/checkpoint.ts'
import { readSafetensorsHeader } from '../../src/engine/weights/safetensors.ts'
import { readTensor } from '../../src/engine/weights/stored-tensor.ts'
import { temporaryFolder } from '../support/temporary.ts'

const FIXTURES = fileURLToPath(new URL('./fixtures/merge-tokens/', import.meta.url))
const { cases } = JSON.parse(await readFile(join(FIXTURES, 'merged.json'), 'utf8')) as {
  cases: Record<
    string,
    { text: string; vocab: Record<string, number>; added: Record<string, boolean> }
  >
}
const D = 8

test.each(Object.entries(cases))('%s gives the tokens and rows of mergekit', async (name, told) => {
  const config = parseMergeConfig(readMergeText(told.text)[0])
  const models = Object.fromEntries(
    namedModels(config).map((model) => [
      keyOf(model),
      { path: join(FIXTURES, model.model.replace('M', 'model-')) },
    ]),
  )
  const out = temporaryFolder()
  for await (const _ of merge({ config, models, out, threads: 1 }));

  const { json } = await readFolderVocabulary(out)
  const ids: Record<string, number> = { ...json.model.vocab }
  for (const { content, id } of json.added_tokens) ids[content] = id
  expect(Object.keys(ids).sort()).toEqual(Object.keys(told.vocab).sort())
  const special = (content: string) =>
    json.added_tokens.find((one) => one.content === content)?.special
  // Without a base mergekit takes any of the models: a token of this one's vocabulary may be an added one there.
  for (const [content, is] of Object.entries(told.added))
    expect(special(content) ?? false, content).toBe(is)

  const ours = (await readSafetensorsHeader(join(out, 'model.safetensors'))).tensors
  const { tensors } = await readSafetensorsHeader(join(FIXTURES, 'merged.safetensors'))
  const theirs = [...tensors.values()].filter((tensor) => tensor.name.startsWith(`${name}/`))
  expect(theirs.length).toBe(ours.size)
  for (const tensor of theirs) {
    const bare = tensor.name.slice(name.length + 1)
    const [a, b] = [await readTensor(ours.get(bare)!), await readTensor(tensor)]
    expect(a.length, bare).toBe(b.length)
    const order = /embed_tokens|lm_head/.test(bare)
      ? Object.keys(ids).map((token) => [ids[token]! * D, told.vocab[token]! * D, D] as const)
      : [[0, 0, a.length] as const]
    const most = b.reduce((m, x) => Math.max(m, Math.abs(x)), 0)
    const close = ([at, from, count]: readonly [number, number, number]) => {
      for (let k = 0; k < count; k++)
        expect(Math.abs(a[at + k]! - b[from + k]!) / most, bare).toBeLessThanOrEqual(1e-6)
    }
    order.forEach(close)
    // Rows behind the last token.
    const rows = Object.keys(ids).length * D
    if (order.length > 1) close([rows, rows, a.length - rows])
  }
})

test('a tokenizer with added tokens cuts texts as each model did, and the model opens', async () => {
  const config = parseMergeConfig(readMergeText(cases.union!.text)[0])
  const path = (i: number) => join(FIXTURES, `model-${i}`)
  const models = Object.fromEntries([0, 1, 2].map((i) => [`M${i}`, { path: path(i) }]))
  const out = temporaryFolder()
  for await (const _ of merge({ config, models, out, threads: 1 }));
  const checkpoint = await openCheckpoint(out)
  expect(checkpoint.config.vocab_size).toBe(Object.keys(cases.union!.vocab).length)
  const tokenizer = await openTokenizer(checkpoint)
  const text = 'ab<|tool|>cd<plain>ij'
  expect(tokenizer.decode(tokenizer.encode(text))).toContain('ab')
  const { json } = await readFolderVocabulary(out)
  const tool = json.added_tokens.find(({ content }) => content === '<|tool|>')!
  expect([...tokenizer.encode(text)]).toContain(tool.id)
  expect(tool.special).toBe(true)
})
