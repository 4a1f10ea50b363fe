import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readTar, tarEnd, tarHeader, tarPadding } from '../../../../src/service/backup/tar.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

const long = `objects/proj_${'x'.repeat(24)}/${'a'.repeat(64)}`
const files: [string, Buffer][] = [
  ['empty', Buffer.alloc(0)],
  ['a/b.json', Buffer.from('{"a": 1}')],
  [long, Buffer.alloc(1024, 'x')],
  ['odd', Buffer.alloc(1025, 'ü')],
]
const archive = Buffer.concat([
  ...files.flatMap(([name, body]) => [tarHeader(name, body.length), body, tarPadding(body.length)]),
  tarEnd(),
])

async function* inChunks(bytes: Buffer, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const namesAndSizes = async (bytes: Buffer) => {
  const found = []
  for await (const { name, size } of readTar(inChunks(bytes, 700))) found.push([name, size])
  return found
}

test.each([1, 511, 512, 4096, 100_000])(
  'files come back whole from chunks of %i bytes',
  async (n) => {
    const found: [string, Buffer][] = []
    for await (const { name, body } of readTar(inChunks(archive, n))) {
      const chunks = []
      for await (const chunk of body) chunks.push(chunk)
      found.push([name, Buffer.concat(chunks)])
    }
    expect(found).toEqual(files)
  },
)

test('a file that nobody reads is skipped', async () => {
  expect(await namesAndSizes(archive)).toEqual(files.map(([name, body]) => [name, body.length]))
})

test('the tar program reads what we write, and we read what it writes', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'ours.tar'), archive)
  execFileSync('tar', ['xf', 'ours.tar'], { cwd: folder })
  for (const [name, body] of files) expect(readFileSync(join(folder, name))).toEqual(body)

  const names = files.map(([name]) => name)
  execFileSync('tar', ['cf', 'theirs.tar', '--format=ustar', ...names], { cwd: folder })
  const theirs = readFileSync(join(folder, 'theirs.tar'))
  expect(await namesAndSizes(theirs)).toEqual(files.map(([name, body]) => [name, body.length]))
})

test('a size beyond 8 GiB survives, as in GNU tar', async () => {
  const size = 5_000_000_000_000
  const { value } = await readTar(inChunks(tarHeader('large', size), 512)).next()
  expect(value).toMatchObject({ name: 'large', size })
})

test('an archive that is cut or is none is refused', async () => {
  await expect(namesAndSizes(archive.subarray(0, 2000))).rejects.toThrow('The archive is cut')
  await expect(namesAndSizes(Buffer.alloc(1024, 'no'))).rejects.toThrow('This is no tar archive')
  const damaged = Buffer.from(archive)
  damaged[3] = damaged[3]! ^ 1
  await expect(namesAndSizes(damaged)).rejects.toThrow('damaged')
})
