import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { locateBaseModel, scanBaseModels } from '../../../../src/service/models/base-models.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-models-'))
})
afterEach(() => rm(folder, { recursive: true }))

async function huggingFace(name: string) {
  await mkdir(join(folder, name))
  await writeFile(join(folder, name, 'config.json'), '{}')
}

test('folders with a config and .gguf files are base models, all else is passed over', async () => {
  await huggingFace('tiny')
  await writeFile(join(folder, 'Small-1.5B.gguf'), '')
  await writeFile(join(folder, 'README.md'), '')
  await mkdir(join(folder, 'empty'))
  await huggingFace('.partial')
  const found = await scanBaseModels(folder)
  expect([...found.keys()].sort()).toEqual(['Small-1.5B', 'tiny'])
  expect(found.get('tiny')?.path).toBe(join(folder, 'tiny'))
})

test('two of one id are an error that names both paths', async () => {
  await huggingFace('tiny')
  await writeFile(join(folder, 'tiny.gguf'), '')
  await expect(scanBaseModels(folder)).rejects.toThrow(
    `Two base models are called "tiny": ${join(folder, 'tiny')} and ${join(folder, 'tiny.gguf')}`,
  )
})

test('a folder that is not there has no models', async () => {
  expect((await scanBaseModels(join(folder, 'nowhere'))).size).toBe(0)
})

test('a base model is found by its name or by its path, and an unknown one is told what there is', async () => {
  await huggingFace('tiny')
  const path = join(folder, 'tiny')
  expect(await locateBaseModel(folder, 'tiny')).toBe(path)
  expect(await locateBaseModel('/nowhere', path)).toBe(path)
  await expect(locateBaseModel(folder, 'large')).rejects.toThrow('(tiny)')
})
