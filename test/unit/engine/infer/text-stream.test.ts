import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createTextStream } from '../../../../src/engine/infer/text-stream.ts'

function run(...pieces: number[][]) {
  const stream = createTextStream()
  return [...pieces.map((piece) => stream.push(Uint8Array.from(piece))), stream.flush()]
}

test('a code point is given when its last byte is there', () => {
  expect(run([0x61, 0xf0], [0x9f, 0x98], [0x80, 0x62])).toEqual(['a', '', '😀b', ''])
})

test('bytes that cannot become UTF-8 are U+FFFD at once', () => {
  expect(run([0xff], [0x61])).toEqual(['\ufffd', 'a', ''])
  expect(run([0xc3], [0x61])).toEqual(['', '\ufffda', ''])
})

test('an unfinished code point is U+FFFD at the end only', () => {
  expect(run([0x61, 0xe2, 0x82])).toEqual(['a', '\ufffd'])
})

test('a byte order mark is text like any other', () => {
  expect(run([0xef, 0xbb, 0xbf, 0x61])).toEqual(['\ufeffa', ''])
})

test('a special token, which has no bytes, gives no text and breaks none', () => {
  expect(run([0xc3], [], [0xa9])).toEqual(['', '', 'é', ''])
})

test('however bytes are cut, the text is that of all bytes at once, in whole code points', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 6 }).map((array) => [...array]),
    fc.string({ unit: 'grapheme', maxLength: 3 }).map((text) => [...Buffer.from(text)]),
  )
  fc.assert(
    fc.property(fc.array(bytes, { maxLength: 6 }), fc.integer({ min: 1, max: 4 }), (runs, size) => {
      const all = runs.flat()
      const pieces: number[][] = []
      for (let i = 0; i < all.length; i += size) pieces.push(all.slice(i, i + size))
      const shown = run(...pieces)
      const whole = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(all))
      expect(shown.join('')).toBe(whole)
      for (const text of shown) expect(/\p{Surrogate}/u.test(text)).toBe(false)
    }),
    { numRuns: 1000, seed: 1 },
  )
})

test.each([
  [[[0x61]], false],
  [[[0xc3]], true],
  [[[0xc3], []], true],
  [[[0xc3], [0xa9]], false],
  [[[0xf0, 0x9f], [0x98]], true],
  [[[0xf0], [0x9f], [0x98], [0x80]], false],
  [[[0xc3], [0x61]], false],
  [[[0xff, 0x80, 0x80, 0x80]], false],
])('%j within a code point: %s', (pieces, half) => {
  const stream = createTextStream()
  for (const piece of pieces) stream.push(Uint8Array.from(piece))
  expect(stream.half()).toBe(half)
})
