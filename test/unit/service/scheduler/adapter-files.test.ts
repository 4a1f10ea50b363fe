import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { ResolvedModel } from '../../../../src/service/models/model.ts'
import { adapterFiles } from '../../../../src/service/scheduler/adapter-files.ts'

const model: ResolvedModel = {
  id: 'ft:m:luthier::abc',
  base_path: '/models/m',
  root: 'm',
  project_id: 'proj_1',
  adapter: { sha256: 'aaaa', config_sha256: 'bbbb' },
}

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'adapters-'))
})
afterEach(() => rm(folder, { recursive: true }))

function store(objects: Record<string, string>) {
  const reads: string[] = []
  async function* read(project_id: string, sha256: string) {
    reads.push(`${project_id}/${sha256}`)
    const text = objects[sha256]
    if (text === undefined) throw new Error(`no object ${sha256}`)
    for (const part of text.match(/../g) ?? []) yield new TextEncoder().encode(part)
  }
  return { reads, file: adapterFiles({ folder: join(folder, 'cache'), read }) }
}

test('an adapter becomes a folder with its two files, and is read once', async () => {
  const { reads, file } = store({ aaaa: 'tensors!', bbbb: '{"r":8}!' })
  const [path, same] = await Promise.all([file(model), file(model)])
  expect(same).toBe(path)
  expect(await file(model)).toBe(path)
  expect(await readFile(path, 'utf8')).toBe('tensors!')
  expect(await readFile(join(dirname(path), 'adapter_config.json'), 'utf8')).toBe('{"r":8}!')
  expect(reads).toEqual(['proj_1/aaaa', 'proj_1/bbbb'])
  await expect(store({}).file(model)).resolves.toBe(path)
})

test('one that cannot be read leaves nothing behind and is tried again', async () => {
  const objects: Record<string, string> = { aaaa: 'tensors!' }
  const { file } = store(objects)
  await expect(file(model)).rejects.toThrow('no object bbbb')
  expect(await readdir(join(folder, 'cache'))).toEqual([])
  objects.bbbb = '{"r":8}!'
  expect(await readFile(await file(model), 'utf8')).toBe('tensors!')
})

test('one that is forgotten is gone from this machine, and made again when it is asked for', async () => {
  const { reads, file } = store({ aaaa: 'tensors!', bbbb: '{"r":8}!' })
  await file(model)
  await file.forget(model.adapter!)
  expect(await readdir(join(folder, 'cache'))).toEqual([])
  expect(await readFile(await file(model), 'utf8')).toBe('tensors!')
  expect(reads).toHaveLength(4)
})

test('two processes that make the same adapter at once both get it', async () => {
  const objects = { aaaa: 'tensors!', bbbb: '{"r":8}!' }
  const [a, b] = await Promise.all([store(objects).file(model), store(objects).file(model)])
  expect(a).toBe(b)
  expect(await readdir(join(folder, 'cache'))).toHaveLength(1)
})
