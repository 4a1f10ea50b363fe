// What a backup file is: a tar of a header, the rows of all tables, the objects, and a sum over all of it.

import { createHash } from 'node:crypto'

export const HEADER = 'luthier-backup.json'
export const END = 'end.json'
export const VERSION = 1

export interface Header {
  readonly format: 'luthier-backup'
  readonly version: number
  readonly created_at: string
  /** The migrations that the database had seen: rows fit this shape of the tables and no other. */
  readonly migrations: readonly string[]
  readonly tables: readonly { readonly name: string; readonly columns: readonly string[] }[]
}

/** What was written or read. */
export interface Tally {
  rows: number
  objects: number
  /** Of the objects. */
  bytes: number
}

export interface End extends Tally {
  /** Over names, sizes and bytes of all entries before. */
  readonly sha256: string
}

/** `tables/<table>/<n>.json`. */
export const rowsEntry = (table: string, n: number): string =>
  `tables/${table}/${String(n).padStart(6, '0')}.json`

/** `objects/<project>/<sha256>`. */
export const objectEntry = (key: string): string => `objects/${key}`

/** The running sum of a backup. */
export const createSum = () => {
  const hash = createHash('sha256')
  return {
    entry: (name: string, size: number) => void hash.update(`${name}\n${size}\n`),
    bytes: (chunk: Uint8Array) => void hash.update(chunk),
    // Of a copy: a hash can be asked only once.
    digest: () => hash.copy().digest('hex'),
  }
}
