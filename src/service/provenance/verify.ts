// Checks an exported folder against its provenance.json, or a file against what stands at its end. Needs no database: files and a public key.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, readdir, readFile, stat } from 'node:fs/promises'
import { basename, join, relative, sep } from 'node:path'
import type { Statement } from './provenance.ts'
import { isSealedBy, keyIdOf, type Sealed } from './sealed.ts'

export const STATEMENT_FILE = 'provenance.json'

/** What lies in an export: the statement on the model, and the hash of every file beside it. */
export interface Manifest {
  model: Statement
  files: SealedFile[]
}

export interface SealedFile {
  path: string
  sha256: string
  bytes: number
}

/** What a sealed file ends with: the statement as JSON, its length, and this. Readers of GGUF stop before it. */
const MAGIC = Buffer.from('LUTHSEAL')
const FOOTER = 4 + MAGIC.length
/** A longer one is a lie. */
const MOST_TRAILER_BYTES = 16 * 2 ** 20

/** The statement as the end of the file that it is on. */
export function trailerOf(sealed: Sealed<Manifest>): Uint8Array {
  const json = Buffer.from(JSON.stringify(sealed))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  return Buffer.concat([json, length, MAGIC])
}

/** A folder, or a file that ends with its own statement. */
export async function verifyExport(path: string, public_key: string): Promise<Manifest> {
  return (await stat(path)).isDirectory()
    ? verifyFolder(path, public_key)
    : verifyFile(path, public_key)
}

/** The same for one file: all of its bytes before the statement at its end. */
export async function verifyFile(file: string, public_key: string): Promise<Manifest> {
  const name = basename(file)
  await using handle = await open(file, 'r')
  const { size } = await handle.stat()
  const read = async (length: number, at: number) => {
    const bytes = Buffer.alloc(length)
    await handle.read(bytes, 0, length, at)
    return bytes
  }
  const footer = size >= FOOTER ? await read(FOOTER, size - FOOTER) : Buffer.alloc(FOOTER)
  const length = footer.readUInt32LE(0)
  if (!footer.subarray(4).equals(MAGIC) || length > MOST_TRAILER_BYTES || length > size - FOOTER)
    throw new Error(`${name} does not end with a signed statement.`)
  const begin = size - FOOTER - length
  let sealed: Sealed<Manifest>
  try {
    sealed = JSON.parse((await read(length, begin)).toString('utf8'))
  } catch (cause) {
    throw new Error(`The statement at the end of ${name} is not JSON.`, { cause })
  }
  checkSeal(sealed, public_key, `the statement at the end of ${name}`)
  const [signed, ...others] = sealed.statement.files
  if (!signed || others.length > 0 || signed.bytes !== begin)
    throw new Error(`${name} was changed after it was signed: it is longer or shorter.`)
  const hash = createHash('sha256')
  const stream = createReadStream(file, { end: Math.max(0, begin - 1), highWaterMark: 2 ** 20 })
  if (begin > 0) for await (const piece of stream) hash.update(piece)
  if (hash.digest('hex') !== signed.sha256)
    throw new Error(`${name} was changed after it was signed.`)
  return sealed.statement
}

function checkSeal(sealed: Sealed<Manifest>, public_key: string, what: string): void {
  const named = String(sealed?.signature?.public_key)
  if (named !== public_key)
    throw new Error(
      `${what} was signed with another key: ${keyIdOf(named)} instead of ${keyIdOf(public_key)}.`,
    )
  const { algorithm, key_id, value } = sealed.signature
  // What the signature does not cover has one spelling only.
  const spelled =
    algorithm === 'ed25519' &&
    key_id === keyIdOf(public_key) &&
    Buffer.from(value, 'base64').toString('base64') === value
  if (!spelled || !isSealedBy(sealed, public_key))
    throw new Error(`${what} was changed after it was signed.`)
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
  checkSeal(sealed, public_key, STATEMENT_FILE)
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
