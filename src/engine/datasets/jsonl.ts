// Lines of a file as text, streamed: memory is bounded by the longest line. Knows UTF-8, no JSON.

import { createReadStream } from 'node:fs'

/** One line, or what is wrong with its bytes. Numbers are 1-based. */
export type Line =
  | { readonly number: number; readonly text: string }
  | { readonly number: number; readonly error: string }

const LONGEST_LINE = 64 * 2 ** 20
const NEWLINE = 0x0a
const BOM = [0xef, 0xbb, 0xbf]

/**
 * Reads line by line. A byte order mark is skipped, `\r\n` ends a line as `\n` does, and the newline at the very end
 * begins no further line. A line of bytes that are no UTF-8, or of more than 64 MB, comes as an error; reading goes on.
 */
export async function* readLines(path: string): AsyncGenerator<Line, void, undefined> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  let number = 0
  let parts: Buffer[] = []
  let length = 0

  const finish = (): Line => {
    number++
    let bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    const long = length > LONGEST_LINE
    parts = []
    length = 0
    if (long) return { number, error: `is longer than ${LONGEST_LINE} bytes` }
    if (number === 1 && BOM.every((byte, i) => bytes[i] === byte)) bytes = bytes.subarray(3)
    if (bytes.at(-1) === 0x0d) bytes = bytes.subarray(0, -1)
    try {
      return { number, text: decoder.decode(bytes) }
    } catch {
      return { number, error: 'is not valid UTF-8' }
    }
  }

  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    const bytes = chunk as Buffer
    let from = 0
    while (from < bytes.length) {
      const at = bytes.indexOf(NEWLINE, from)
      const piece = bytes.subarray(from, at < 0 ? bytes.length : at)
      length += piece.length
      if (length <= LONGEST_LINE) parts.push(piece)
      else parts = []
      if (at < 0) break
      yield finish()
      from = at + 1
    }
  }
  if (length > 0) yield finish()
}
