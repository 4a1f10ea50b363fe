// Checks an exported folder against its provenance.json. Needs no database: files and a public key.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import type { Statement } from './provenance.ts'
import { isSealedBy, keyIdOf, type Sealed } from './sealed.ts'

export const STATEMENT_FILE = 'provenance.json'

/** What lies in an export: the statement on the model, and the hash of every file beside it. */
export interface Manifest {
  model: Statement
  files: { path: string; sha256: string; bytes: number }[]
}

/** Throws at the first thing that is not as it was signed; `public_key` (raw, base64) is who must have signed. */
export async function verifyFolder(folder: string, public_key: string): Promise<Manifest> {
  const path = join(folder, STATEMENT_FILE)
  let sealed: Sealed<Manifest>
  try {
    sealed = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new Error(`${STATEMENT_FILE} is missing or is not JSON.`, { cause })
  }
  const named = String(sealed?.signature?.public_key)
  if (named !== public_key)
    throw new Error(
      `${STATEMENT_FILE} was signed with another key: ${keyIdOf(named)} instead of ${keyIdOf(public_key)}.`,
    )
  if (!isSealedBy(sealed, public_key))
    throw new Error(`${STATEMENT_FILE} was changed after it was signed.`)
  const { files } = sealed.statement
  const signed = new Set([STATEMENT_FILE, ...files.map((file) => file.path)])
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue
    const found = relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/')
    if (!entry.isFile()) throw new Error(`${found} is no plain file.`)
    if (!signed.has(found)) throw new Error(`${found} is not among the files that were signed.`)
  }
  for (const { path, sha256 } of files) {
    const hash = createHash('sha256')
    try {
      for await (const piece of createReadStream(join(folder, path))) hash.update(piece)
    } catch (cause) {
      throw new Error(`${path} was signed and is missing.`, { cause })
    }
    if (hash.digest('hex') !== sha256) throw new Error(`${path} was changed after it was signed.`)
  }
  return sealed.statement
}
