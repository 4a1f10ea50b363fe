// Tar archives from outside: plain files and folders, whatever writes them (ustar, pax, GNU). Believes no header: not its
// name, not its size. Writes nothing.

import { invalidRequest } from '../../errors.ts'

const BLOCK = 512
const MOST_ENTRIES = 10_000
/** Of a long name or of pax records. */
const MOST_HEADER_BYTES = 64 * 1024

export interface TarredFile {
  /** Relative, with `/`, without `.` and `..`. */
  readonly path: string
  readonly bytes: number
  /** To be read to its end, or left alone: then it is skipped. */
  readonly body: AsyncIterable<Uint8Array>
}

/** The plain files of an archive of `total` bytes, in their order. Throws what no honest archive holds. */
export async function* untar(
  source: AsyncIterable<Uint8Array>,
  total: number,
): AsyncGenerator<TarredFile, void, undefined> {
  const reader = blockReader(source)
  let left = total
  let long: { path?: string; size?: number } = {}
  const seen = new Set<string>()
  try {
    for (let entries = 0; left >= BLOCK; entries++) {
      if (entries > MOST_ENTRIES) throw refuse(`holds more than ${MOST_ENTRIES} entries`)
      const header = await reader.exactly(BLOCK)
      left -= BLOCK
      if (header.every((byte) => byte === 0)) return
      if (checksumOf(header) !== octal(header, 148, 8))
        throw refuse('is no tar archive, or it is damaged')
      const type = String.fromCharCode(header[156]!)
      const bytes = long.size ?? octal(header, 124, 12)
      const name = long.path ?? nameOf(header)
      if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > left)
        throw refuse(`${shown(name)} claims ${bytes} bytes, and ${left} are left in the archive`)
      const padding = (BLOCK - (bytes % BLOCK)) % BLOCK
      left -= bytes + padding
      if (type === 'x' || type === 'L') {
        if (bytes > MOST_HEADER_BYTES) throw refuse(`has a header of ${bytes} bytes`)
        const text = (await reader.exactly(bytes)).toString('utf8')
        await reader.skip(padding)
        long = type === 'x' ? { ...long, ...paxOf(text) } : { ...long, path: untilZero(text) }
        continue
      }
      long = {}
      if (type === 'g' || type === '5') {
        if (type === '5') safePath(name)
        await reader.skip(bytes + padding)
        continue
      }
      if (type !== '0' && type !== '\0')
        throw refuse(`${shown(name)} is no plain file but of the kind ${shown(type)}: a link, say`)
      const path = safePath(name)
      if (seen.has(path)) throw refuse(`${shown(path)} is in it twice`)
      seen.add(path)
      const body = reader.portion(bytes)
      yield { path, bytes, body: body.read() }
      await reader.skip(body.left() + padding)
    }
  } finally {
    await reader.end()
  }
}

/** A path below a folder, whatever folder that is. */
function safePath(name: string): string {
  if (name.startsWith('/') || /[\\\0]/.test(name) || /^[A-Za-z]:/.test(name))
    throw refuse(`${shown(name)} points out of the folder`)
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw refuse(`${shown(name)} points out of the folder`)
  return parts.join('/')
}

const shown = (text: string) => JSON.stringify(text.slice(0, 200))

const refuse = (why: string) =>
  invalidRequest(`The archive cannot be read: ${why}.`, { param: 'files', code: 'invalid_archive' })

/** Fields of a pax header that say where a file belongs and how long it is. */
function paxOf(text: string): { path?: string; size?: number } {
  const found: { path?: string; size?: number } = {}
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(' ', at)
    const length = Number(text.slice(at, space))
    if (space < 0 || !(length > 0)) throw refuse('has a header that cannot be read')
    // Lengths count bytes; a record ends at a line end, whatever its letters take.
    const end = text.indexOf('\n', space)
    const [key, ...value] = text.slice(space + 1, end < 0 ? undefined : end).split('=')
    if (key === 'path') found.path = value.join('=')
    if (key === 'size') found.size = Number(value.join('='))
    if (key?.startsWith('GNU.sparse')) throw refuse('holds a sparse file')
    at = end < 0 ? text.length : end + 1
  }
  return found
}

const untilZero = (text: string) => text.replace(/\0[\s\S]*$/, '')

const nameOf = (header: Buffer): string => {
  const ustar = header.toString('latin1', 257, 262) === 'ustar'
  const prefix = ustar ? untilZero(header.toString('utf8', 345, 500)) : ''
  return (prefix ? `${prefix}/` : '') + untilZero(header.toString('utf8', 0, 100))
}

/** GNU writes what does not fit as binary. */
const octal = (header: Buffer, at: number, width: number): number => {
  if (header[at]! & 0x80) return Number(header.readBigUInt64BE(at + width - 8))
  const text = untilZero(header.toString('latin1', at, at + width)).trim()
  return /^[0-7]*$/.test(text) ? Number.parseInt(text || '0', 8) : Number.NaN
}

/** The sum of all bytes, those of the sum itself taken as spaces. */
const checksumOf = (header: Buffer): number =>
  header.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : byte), 0)

function blockReader(source: AsyncIterable<Uint8Array>) {
  const chunks = source[Symbol.asyncIterator]()
  let held: Buffer = Buffer.alloc(0)
  const some = async (most: number): Promise<Buffer> => {
    while (held.length === 0) {
      const { done, value } = await chunks.next()
      if (done) throw refuse('it ends in the middle')
      held = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    }
    const taken = held.subarray(0, most)
    held = held.subarray(taken.length)
    return taken
  }
  const reader = {
    async exactly(length: number): Promise<Buffer> {
      const parts: Buffer[] = []
      for (let left = length; left > 0; ) {
        const part = await some(left)
        parts.push(part)
        left -= part.length
      }
      return Buffer.concat(parts)
    },
    async skip(length: number): Promise<void> {
      for (let left = length; left > 0; ) left -= (await some(left)).length
    },
    portion(length: number) {
      let left = length
      return {
        left: () => left,
        async *read() {
          while (left > 0) {
            const part = await some(left)
            left -= part.length
            yield part
          }
        },
      }
    },
    end: async () => {
      await chunks.return?.()
    },
  }
  return reader
}
