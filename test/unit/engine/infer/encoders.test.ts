// How vectors are made of texts where a model brings its own way.

import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { Encoders } from '../../../../src/engine/infer/encoders.ts'
import { readPooling } from '../../../../src/engine/weights/pooling.ts'
import { suiteFolder } from '../../../support/temporary.ts'
import { writeTinyEncoder } from '../../../support/tiny-encoder.ts'

const folder = suiteFolder()
afterAll(() => rm(folder, { recursive: true, force: true }))

/** A tiny encoder with the files that sentence-transformers writes. */
async function encoder(name: string, kinds: string[], mode: object): Promise<string> {
  const path = await writeTinyEncoder(join(folder, name), { head: false })
  await mkdir(join(path, '1_Pooling'))
  await writeFile(join(path, '1_Pooling', 'config.json'), JSON.stringify(mode))
  const modules = kinds.map((kind, idx) => ({
    idx,
    name: `${idx}`,
    path: idx === 0 ? '' : `${idx}_${kind}`,
    type: `sentence_transformers.models.${kind}`,
  }))
  await writeFile(join(path, 'modules.json'), JSON.stringify(modules))
  return path
}

const FIRST = { pooling_mode_cls_token: true, pooling_mode_mean_tokens: false }

test('the first token alone, as long as it is, where the model says so', async () => {
  const model = await encoder('first', ['Transformer', 'Pooling'], FIRST)
  const plain = await writeTinyEncoder(join(folder, 'plain'), { head: false })
  const cache = join(folder, 'cache')
  await mkdir(cache)
  const encoders = new Encoders(1)
  const context = {
    turn: async () => ({ [Symbol.dispose]() {} }),
    signal: new AbortController().signal,
  }
  async function vectors(path: string, input: number[][]) {
    const target = { model: path, cache }
    const request = { type: 'encode', target, task: 'embedding', input } as const
    const { results } = await encoders.encode({ ...request, input }, context)
    return results.map((one) => (one.type === 'embedding' ? one.vector : []))
  }
  const input = [[5], [2, 5, 3]]
  const [one, three] = (await vectors(model, input)) as [number[], number[]]
  const [mean, meanOfThree] = (await vectors(plain, input)) as [number[], number[]]
  const unit = (vector: number[]) => vector.map((x) => x / Math.hypot(...vector))
  expect(Math.hypot(...mean)).toBeCloseTo(1, 5)
  expect(Math.hypot(...one)).not.toBeCloseTo(1, 2)
  // Of one token the first is all there is.
  for (const [i, x] of unit(one).entries()) expect(x).toBeCloseTo(mean[i]!, 5)
  const dot = unit(three).reduce((sum, x, i) => sum + x * meanOfThree[i]!, 0)
  expect(dot).toBeLessThan(0.999)
  await encoders.clear()
})

test('what is pooled in another way is refused by name', async () => {
  const most = { ...FIRST, pooling_mode_max_tokens: true }
  await expect(
    readPooling(await encoder('both', ['Transformer', 'Pooling'], most)),
  ).rejects.toMatchObject({ status: 400, message: expect.stringContaining('max_tokens') })
  await expect(
    readPooling(await encoder('dense', ['Transformer', 'Pooling', 'Dense'], FIRST)),
  ).rejects.toMatchObject({ code: 'unsupported_model', message: expect.stringContaining('Dense') })
})
