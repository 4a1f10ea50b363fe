import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createSniffer } from '../../../../src/service/files/sniff.ts'

/** The verdict on bytes that come in pieces of this size. */
const sniff = (bytes: Uint8Array, piece = bytes.length || 1) => {
  const sniffer = createSniffer()
  for (let at = 0; at < bytes.length; at += piece) sniffer.push(bytes.subarray(at, at + piece))
  return sniffer.verdict()
}
const text = (...parts: (string | number[])[]) =>
  Buffer.concat(parts.map((part) => Buffer.from(part as string)))

test.each<[string, Buffer]>([
  ['one row', text('{"a":1}')],
  ['a byte order mark', text([0xef, 0xbb, 0xbf], '{"a":1}\n')],
  ['blank lines first', text('\n\r\n  \n{"a":1}\r\n')],
  ['a bad row later, which is the job to say', text('{"a":1}\nnonsense\n')],
  ['characters of all lengths', text('{"a":"é€😀"}\n'.repeat(50))],
  ['a first row too long to read here', text(`{"a":"${'x'.repeat(3_000_000)}`)],
])('may be JSONL: %s', (_, bytes) => {
  for (const piece of [1, 3, 7, 64_000].filter((p) => bytes.length / p < 1e5))
    expect(sniff(bytes, piece)).toBeUndefined()
})

test.each<[string, Buffer, string]>([
  ['nothing', text(''), 'The file holds no rows.'],
  ['only a byte order mark', text([0xef, 0xbb, 0xbf]), 'The file holds no rows.'],
  ['blank lines', text('\n \r\n\t\n'), 'The file holds no rows.'],
  ['a number', text('\n12\n'), 'The file is not JSONL: line 2 is not a JSON object.'],
  ['an array', text('[{"a":1}]'), 'The file is not JSONL: line 1 is not a JSON object.'],
  [
    'JSON over several lines',
    text('{\n"a":1}'),
    'The file is not JSONL: line 1 is not a JSON object.',
  ],
  ['UTF-16', text([0xff, 0xfe, 0x7b, 0x00]), 'invalid bytes after byte 0'],
  ['an invalid byte far in', text('{"a":1}\n', [0xc3, 0x28]), 'not UTF-8'],
  ['a character cut at the end', text('{"a":1}\n', [0xf0, 0x9f]), 'invalid bytes after byte 8'],
])('is no JSONL: %s', (_, bytes, verdict) => {
  for (const piece of [1, 2, 1000]) expect(sniff(bytes, piece)).toContain(verdict)
})

test('a file of blank lines costs next to nothing, and the line of its row is right', () => {
  const blank = Buffer.alloc(16 * 1024 * 1024, '\n')
  const before = process.cpuUsage()
  expect(sniff(blank, 65_536)).toBe('The file holds no rows.')
  // A tenth of what decoding every line took.
  expect(process.cpuUsage(before).user).toBeLessThan(1.5e6)
  const lines = 100_000
  expect(sniff(Buffer.concat([blank.subarray(0, lines), text('12')]), 65_536)).toBe(
    `The file is not JSONL: line ${lines + 1} is not a JSON object.`,
  )
})

test('a byte order mark alone on the first line is a blank line', () => {
  const bom = [0xef, 0xbb, 0xbf]
  for (const piece of [1, 2, 1000]) {
    expect(sniff(text(bom, '\n{"a":1}'), piece)).toBeUndefined()
    expect(sniff(text(bom, ' \r\n12\n'), piece)).toContain('line 2 is')
  }
})

test('how the bytes are cut changes nothing', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc.string({ unit: 'binary', maxLength: 40 }).map((s) => Buffer.from(s)),
      ),
      fc.integer({ min: 1, max: 10 }),
      (bytes, piece) => {
        const isText = Buffer.from(bytes).equals(
          Buffer.from(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)),
        )
        expect(sniff(bytes, piece)?.includes('not UTF-8') ?? false).toBe(!isText)
      },
    ),
    { numRuns: 500 },
  )
})
