// Whether bytes that stream by can be JSONL at all: UTF-8, and a JSON object as the first row.
// Each row is judged later, by the job that trains on it; this costs next to nothing while the upload runs.

import { isUtf8 } from 'node:buffer'

/** A first row longer than this is not read here: parsing it would hold up everybody else. */
const ROW_LIMIT = 1024 * 1024
const NEWLINE = 0x0a
const BOM = Buffer.from([0xef, 0xbb, 0xbf])

export interface Sniffer {
  /** The next bytes of the file. */
  push(chunk: Uint8Array): void
  /** What is wrong with it, in a sentence; undefined when it may be JSONL. */
  verdict(): string | undefined
}

/** Holds no more of the file than its first row. */
export const createSniffer = (): Sniffer => {
  let carry: Buffer<ArrayBufferLike> = Buffer.alloc(0) // the begin of a character that the next chunk ends
  let valid = 0 // how many bytes are known to be text
  let isText = true
  const row = createRowReader()

  const checkText = (chunk: Buffer) => {
    const bytes = carry.length > 0 ? Buffer.concat([carry, chunk]) : chunk
    const cut = bytes.length - unfinished(bytes)
    isText = isUtf8(bytes.subarray(0, cut))
    valid += isText ? cut : validPart(bytes)
    carry = Buffer.from(bytes.subarray(cut))
  }

  return {
    push(input) {
      if (!isText) return
      const chunk = Buffer.from(input.buffer, input.byteOffset, input.byteLength)
      checkText(chunk)
      if (isText) row.push(chunk)
    },
    verdict() {
      if (!isText || carry.length > 0)
        return `The file is not UTF-8 text: there are invalid bytes after byte ${valid}.`
      const text = row.text()
      if (text === undefined) return undefined
      if (text.trim() === '') return 'The file holds no rows.'
      return isJsonObject(text)
        ? undefined
        : `The file is not JSONL: line ${row.line} is not a JSON object.`
    },
  }
}

/** How many bytes are text before those that are not. */
const validPart = (bytes: Buffer): number => {
  let [good, bad] = [0, bytes.length]
  const endOf = (length: number) => length - unfinished(bytes.subarray(0, length))
  while (bad - good > 1) {
    const middle = (good + bad) >> 1
    if (isUtf8(bytes.subarray(0, endOf(middle)))) good = middle
    else bad = middle
  }
  return endOf(good)
}

/** How many bytes at the end begin a character that is not complete. */
const unfinished = (bytes: Buffer): number => {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!
    if (byte < 0x80) return 0
    if (byte >= 0xc0) {
      const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2
      return needed > back ? back : 0
    }
  }
  return 0
}

/** Collects the first line that is not blank. Looks at each byte before it once and keeps none of them. */
const createRowReader = () => {
  let parts: Buffer[] = []
  let bytes = 0
  let state: 'reading' | 'complete' | 'too long' = 'reading'
  const reader = {
    line: 1,
    push(chunk: Buffer) {
      let start = 0
      while (state === 'reading' && start < chunk.length) {
        if (bytes === 0) {
          start = skipBlank(chunk, start)
          if (start === chunk.length) return
        }
        const end = chunk.indexOf(NEWLINE, start)
        const part = chunk.subarray(start, end < 0 ? chunk.length : end)
        parts.push(Buffer.from(part))
        bytes += part.length
        if (bytes > ROW_LIMIT) {
          state = 'too long'
          parts = []
        } else if (end >= 0) finish()
        if (end < 0) return
        start = end + 1
      }
    },
    /** The row without a byte order mark; undefined when it was too long to keep. */
    text(): string | undefined {
      if (state === 'too long') return undefined
      const all = Buffer.concat(parts)
      const marked = reader.line === 1 && all.subarray(0, 3).equals(BOM)
      return (marked ? all.subarray(3) : all).toString('utf8')
    },
  }

  const skipBlank = (chunk: Buffer, from: number): number => {
    let at = from
    for (; at < chunk.length && isBlank(chunk[at]!); at++) if (chunk[at] === NEWLINE) reader.line++
    return at
  }

  const finish = () => {
    // Only the first line may be blank and yet have bytes here: those of the byte order mark.
    if (reader.line > 1 || reader.text()?.trim() !== '') {
      state = 'complete'
      return
    }
    parts = []
    bytes = 0
    reader.line++
  }
  return reader
}

/** Tab, newline, vertical tab, form feed, carriage return, space. */
const isBlank = (byte: number) => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)

const isJsonObject = (text: string): boolean => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}
