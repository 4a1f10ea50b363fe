// The tar format, as much of it as a backup needs: plain files, one after the other, read and written as streams.
// POSIX ustar, with GNU's binary sizes from 8 GiB on, so that `tar tvf` shows what is in a backup.

const BLOCK = 512

export interface TarEntry {
  readonly name: string
  readonly size: number
  /** To be read to its end, or left alone: then it is skipped. */
  readonly body: AsyncIterable<Buffer>
}

/** What stands before a file's bytes. */
export const tarHeader = (name: string, size: number): Buffer => {
  const header = Buffer.alloc(BLOCK)
  const [prefix, rest] = splitName(name)
  header.write(rest, 0)
  header.write('0000600\0', 100)
  for (const [at, length] of [
    [108, 7],
    [116, 7],
    [136, 11],
  ] as const)
    header.write(`${'0'.repeat(length)}\0`, at)
  writeSize(header, size)
  header.write('0', 156)
  header.write('ustar\0' + '00', 257)
  header.write(prefix, 345)
  header.write(checksum(header), 148)
  return header
}

/** What stands behind a file's bytes. */
export const tarPadding = (size: number): Buffer => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK)

/** What stands behind the last file. */
export const tarEnd = (): Buffer => Buffer.alloc(2 * BLOCK)

/** The files of an archive in their order. Fails where it is no tar, or is cut. */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry> {
  await using reader = blockReader(source)
  while (true) {
    const header = await reader.exactly(BLOCK)
    if (header.every((byte) => byte === 0)) return
    const name = nameOf(header)
    const size = readSize(header)
    if (header.toString('latin1', 257, 262) !== 'ustar' || readChecksum(header) !== sumOf(header))
      throw new Error('This is no tar archive, or it is damaged.')
    let left = size
    async function* body() {
      while (left > 0) {
        const chunk = await reader.some(left)
        left -= chunk.length
        yield chunk
      }
    }
    yield { name, size, body: body() }
    while (left > 0) left -= (await reader.some(left)).length
    await reader.exactly((BLOCK - (size % BLOCK)) % BLOCK)
  }
}

/** A name of more than 100 bytes is cut at a slash. */
const splitName = (name: string): [prefix: string, rest: string] => {
  if (Buffer.byteLength(name) <= 100) return ['', name]
  const at = name.lastIndexOf('/')
  const parts: [string, string] = [name.slice(0, at), name.slice(at + 1)]
  if (at < 0 || Buffer.byteLength(parts[0]) > 155 || Buffer.byteLength(parts[1]) > 100)
    throw new Error(`A tar archive cannot hold a file of this name: ${name}`)
  return parts
}

const OCTAL_LIMIT = 8 ** 11

const writeSize = (header: Buffer, size: number): void => {
  if (size < OCTAL_LIMIT) {
    header.write(`${size.toString(8).padStart(11, '0')}\0`, 124)
    return
  }
  header[124] = 0x80
  header.writeBigUInt64BE(BigInt(size), 128)
}

const readSize = (header: Buffer): number =>
  header[124]! & 0x80
    ? Number(header.readBigUInt64BE(128))
    : Number.parseInt(header.toString('latin1', 124, 135), 8)

const text = (header: Buffer, start: number, end: number): string => {
  const zero = header.indexOf(0, start)
  return header.toString('utf8', start, zero >= start && zero < end ? zero : end)
}

const nameOf = (header: Buffer): string => {
  const prefix = text(header, 345, 500)
  return (prefix ? `${prefix}/` : '') + text(header, 0, 100)
}

/** The sum of all bytes, those of the sum itself taken as spaces. */
const sumOf = (header: Buffer): number =>
  header.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : byte), 0)

const checksum = (header: Buffer): string => `${sumOf(header).toString(8).padStart(6, '0')}\0 `

const readChecksum = (header: Buffer): number =>
  Number.parseInt(header.toString('latin1', 148, 154), 8)

/** Gives a stream's bytes in the portions that are asked for. */
const blockReader = (source: AsyncIterable<Uint8Array>) => {
  const chunks = source[Symbol.asyncIterator]()
  let held: Buffer = Buffer.alloc(0)
  const some = async (most: number): Promise<Buffer> => {
    while (held.length === 0) {
      const { done, value } = await chunks.next()
      if (done) throw new Error('The archive is cut: it ends in the middle.')
      held = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    }
    const taken = held.subarray(0, most)
    held = held.subarray(taken.length)
    return taken
  }
  return {
    some,
    exactly: async (length: number): Promise<Buffer> => {
      const parts: Buffer[] = []
      for (let left = length; left > 0; ) {
        const part = await some(left)
        parts.push(part)
        left -= part.length
      }
      return Buffer.concat(parts)
    },
    [Symbol.asyncDispose]: async () => {
      await chunks.return?.()
    },
  }
}
