// A signed folder: what is changed in it must be told.

import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { newPrivateKey, signingKey } from '../../../src/service/provenance/sealed.ts'
import { trailerOf, verifyExport, verifyFolder } from '../../../src/service/provenance/verify.ts'

const key = signingKey(newPrivateKey())
let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'luthier-sealed-'))
  const bytes = Buffer.from('weights')
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  const files = [{ path: 'model.safetensors', sha256, bytes: bytes.length }]
  await writeFile(join(folder, 'model.safetensors'), bytes)
  const sealed = key.seal({ model: { model: 'm', seed: 1 }, files })
  await writeFile(join(folder, 'provenance.json'), JSON.stringify(sealed))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

test('an untouched folder passes', async () => {
  expect((await verifyFolder(folder, key.public_key)).model.model).toBe('m')
})

test('a flipped byte is told', async () => {
  await writeFile(join(folder, 'model.safetensors'), 'weighTs')
  await expect(verifyFolder(folder, key.public_key)).rejects.toThrow(
    'model.safetensors was changed',
  )
})

test('an edited statement is told', async () => {
  const path = join(folder, 'provenance.json')
  const text = await readFile(path, 'utf8')
  await writeFile(path, text.replace('"seed":1', '"seed":2'))
  await expect(verifyFolder(folder, key.public_key)).rejects.toThrow('changed after it was signed')
})

test('a foreign key is told, and one that claims to be ours', async () => {
  const other = signingKey(newPrivateKey())
  await expect(verifyFolder(folder, other.public_key)).rejects.toThrow('another key')
  const path = join(folder, 'provenance.json')
  const { statement } = JSON.parse(await readFile(path, 'utf8'))
  const forged = other.seal(statement)
  forged.signature.public_key = key.public_key
  await writeFile(path, JSON.stringify(forged))
  await expect(verifyFolder(folder, key.public_key)).rejects.toThrow('changed after it was signed')
})

test('a file more or less is told', async () => {
  await writeFile(join(folder, 'more.bin'), 'x')
  await expect(verifyFolder(folder, key.public_key)).rejects.toThrow('not among the files')
  await rm(join(folder, 'more.bin'))
  await rm(join(folder, 'model.safetensors'))
  await expect(verifyFolder(folder, key.public_key)).rejects.toThrow('missing')
})

test('a single file ends with its statement: a flipped byte, an edit and a foreign key are told', async () => {
  const bytes = Buffer.from('GGUF and weights')
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  const files = [{ path: 'm.gguf', sha256, bytes: bytes.length }]
  // biome-ignore lint/suspicious/noExplicitAny: of the statement one field is looked at
  const trailer = Buffer.from(trailerOf(key.seal({ model: { model: 'm', seed: 1 } as any, files })))
  const file = join(folder, 'm.gguf')
  const check = async (content: Buffer, public_key = key.public_key) => {
    await writeFile(file, content)
    return verifyExport(file, public_key)
  }
  const whole = Buffer.concat([bytes, trailer])
  expect((await check(whole)).model.model).toBe('m')
  for (let at = 0; at < whole.length; at += 7) {
    const flipped = Buffer.from(whole)
    flipped[at]! ^= 1
    await expect(check(flipped), `byte ${at}`).rejects.toThrow()
  }
  await expect(check(Buffer.concat([bytes, Buffer.from('x'), trailer]))).rejects.toThrow('longer')
  await expect(check(bytes)).rejects.toThrow('does not end with a signed statement')
  const other = signingKey(newPrivateKey())
  await expect(check(whole, other.public_key)).rejects.toThrow('another key')
})
