// The tar format (POSIX.1-2001) on its way out: headers and padding. Knows no files.

const BLOCK = 512

/** What stands before a file's bytes; a long name or a size beyond 8 GiB takes a header of its own. */
export function tarHeader(path: string, bytes: number): Uint8Array {
  const name = Buffer.from(path)
  const long = name.length > 100
  const large = bytes >= 8 * 2 ** 30
  if (!long && !large) return header(name, bytes, '0')
  const records = Buffer.concat([
    ...(long ? [record('path', path)] : []),
    ...(large ? [record('size', String(bytes))] : []),
  ])
  return Buffer.concat([
    header(Buffer.from('pax'), records.length, 'x'),
    records,
    tarPadding(records.length),
    header(name.subarray(0, 100), large ? 0 : bytes, '0'),
  ])
}

/** What stands after a file's bytes. */
export const tarPadding = (bytes: number): Uint8Array =>
  new Uint8Array((BLOCK - (bytes % BLOCK)) % BLOCK)

/** What ends an archive. */
export const TAR_END: Uint8Array = new Uint8Array(2 * BLOCK)

function header(name: Buffer, bytes: number, type: string): Buffer {
  const block = Buffer.alloc(BLOCK)
  name.copy(block)
  const field = (text: string, at: number) => block.write(text, at, 'latin1')
  const octal = (value: number, at: number, width: number) =>
    field(`${value.toString(8).padStart(width - 1, '0')}\0`, at)
  octal(0o644, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(bytes, 124, 12)
  octal(0, 136, 12)
  field('        ', 148)
  field(type, 156)
  field('ustar\x0000', 257)
  const sum = block.reduce((total, byte) => total + byte, 0)
  field(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

/** `<length> key=value\n`, where the length counts itself. */
function record(key: string, value: string): Buffer {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest
  while (String(length).length + rest !== length) length = String(length).length + rest
  return Buffer.from(`${length} ${key}=${value}\n`)
}
