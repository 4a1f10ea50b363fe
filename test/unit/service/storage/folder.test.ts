import { mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openFolderStore } from '../../../../src/service/storage/folder.ts'
import { parseKey } from '../../../../src/service/storage/object-store.ts'
import { objectStoreContract } from '../../../support/object-store-contract.ts'

objectStoreContract('folder', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-store-'))
  return {
    store: await openFolderStore(folder),
    corrupt: async (key) => {
      const { project_id, sha256 } = parseKey(key)
      await using file = await open(
        join(folder, 'projects', project_id, sha256.slice(0, 2), sha256),
        'r+',
      )
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 0)
      await file.write(Buffer.from([buffer[0]! ^ 0xff]), 0, 1, 0)
    },
    countIncoming: async () => (await readdir(join(folder, 'incoming'))).length,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
})

test('opening clears what dead processes left and spares what living ones write', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'luthier-store-'))
  await openFolderStore(folder)
  const incoming = join(folder, 'incoming')
  const NO_PROCESS = 2 ** 22 + 1 // above the kernel's largest pid
  await writeFile(join(incoming, `${hostname()}.${NO_PROCESS}.a`), 'x')
  await writeFile(join(incoming, `${hostname()}.${process.ppid}.b`), 'x')
  await writeFile(join(incoming, `elsewhere.${NO_PROCESS}.c`), 'x')
  await openFolderStore(folder)
  expect((await readdir(incoming)).sort()).toEqual(
    [`${hostname()}.${process.ppid}.b`, `elsewhere.${NO_PROCESS}.c`].sort(),
  )
  await rm(folder, { recursive: true })
})
