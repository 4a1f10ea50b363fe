import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Line, readLines } from '../../../../src/engine/datasets/jsonl.ts'
import { temporaryFolder } from '../../../support/temporary.ts'

function written(...parts: (string | Uint8Array)[]): string {
  const file = join(temporaryFolder(), 'f.jsonl')
  writeFileSync(file, Buffer.concat(parts.map((part) => Buffer.from(part as string))))
  return file
}

async function linesOf(file: string): Promise<(string | [number, string])[]> {
  const lines: Line[] = []
  for await (const line of readLines(file)) lines.push(line)
  expect(lines.map(({ number }) => number)).toEqual(lines.map((_, i) => i + 1))
  return lines.map((line) => ('text' in line ? line.text : [line.number, line.error]))
}

const BOM = Uint8Array.of(0xef, 0xbb, 0xbf)

test.each([
  ['nothing', '', []],
  ['one line without an end', 'a', ['a']],
  ['one line with an end', 'a\n', ['a']],
  ['Windows line ends', 'a\r\nb\r\n', ['a', 'b']],
  ['empty lines', '\na\n\nb\n\n', ['', 'a', '', 'b', '']],
  ['a lone newline', '\n', ['']],
])('%s', async (_, text, expected) => {
  expect(await linesOf(written(text))).toEqual(expected)
})

test('a byte order mark is skipped at the beginning and nowhere else', async () => {
  expect(await linesOf(written(BOM, 'a\n', BOM, 'b'))).toEqual(['a', '\ufeffb'])
})

test('bytes that are no UTF-8 are an error with its line, and reading goes on', async () => {
  const file = written('ok\n', Uint8Array.of(0x63, 0xe9, 0x0a), 'ü\n')
  expect(await linesOf(file)).toEqual(['ok', [2, 'is not valid UTF-8'], 'ü'])
})

test('a code point may lie across two reads', async () => {
  const text = `${'x'.repeat(2 ** 20 - 2)}😀`
  expect(await linesOf(written(text, '\n', text))).toEqual([text, text])
})

test('a line of 10 MB is read, one of 65 MB is refused and the next is read', async () => {
  const long = 'y'.repeat(10 * 2 ** 20)
  expect(await linesOf(written(long, '\nb\n'))).toEqual([long, 'b'])
  const file = written(Buffer.alloc(65 * 2 ** 20, 'z'), '\nb\n')
  expect(await linesOf(file)).toEqual([[1, 'is longer than 67108864 bytes'], 'b'])
})
