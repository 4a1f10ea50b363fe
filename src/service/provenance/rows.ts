// Rows of a training file by their hashes: SHA-256 of a line as it stands in the file, without its end.

import { createHash } from 'node:crypto'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** The hash of a row given as text. */
export const hashOfRow = (row: string): string => sha256(Buffer.from(row.trim()))

/** The hash of each line that is not empty, in order. */
export async function* rowHashes(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of bytes) {
    let from = 0
    const all = rest.length > 0 ? Buffer.concat([rest, chunk]) : Buffer.from(chunk)
    for (let end = all.indexOf(10); end >= 0; end = all.indexOf(10, from)) {
      yield* hashOf(all.subarray(from, end))
      from = end + 1
    }
    rest = all.subarray(from)
  }
  yield* hashOf(rest)
}

function* hashOf(line: Buffer): Generator<string> {
  const text = line.toString('utf8').trim()
  if (text !== '') yield hashOfRow(text)
}

/** One hash for all rows in order: SHA-256 over their hashes, each with a line end. */
export async function digestOfRows(bytes: AsyncIterable<Uint8Array>) {
  const hash = createHash('sha256')
  let count = 0
  for await (const row of rowHashes(bytes)) {
    hash.update(`${row}\n`)
    count++
  }
  return { count, sha256: hash.digest('hex') }
}
