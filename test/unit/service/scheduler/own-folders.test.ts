import { expect, test } from 'vitest'
import { withoutFolders } from '../../../../src/service/scheduler/own-folders.ts'

const folders = ['/srv/my home', '/srv/my home/models (new)', '/tmp/']

test.each([
  ["'/srv/my home/models (new)/a b/x.safetensors' is cut", "'a b/x.safetensors' is cut"],
  ['open /srv/my home/cache/weights/1.bin failed', 'open cache/weights/1.bin failed'],
  ['/tmp/a: no space, /tmp/b: no space', 'a: no space, b: no space'],
  ["scandir '/srv/my home/models (new)'", "scandir 'models (new)'"],
  ['/srv/my homes/x and /data/tmp/x are others', '/srv/my homes/x and /data/tmp/x are others'],
  ['MatMul: inner dims differ, 1/2/3', 'MatMul: inner dims differ, 1/2/3'],
])('%s', (message, told) => {
  expect(withoutFolders(message, folders)).toBe(told)
})

test('a folder that is the root takes nothing away', () => {
  expect(withoutFolders('/a/b', ['/', ''])).toBe('/a/b')
})
