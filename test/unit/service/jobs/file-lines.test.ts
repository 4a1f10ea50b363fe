import { expect, test } from 'vitest'
import { pickLines, withoutLines } from '../../../../src/service/jobs/file-lines.ts'

const text = 'one\n\nthr\u00e9e\r\nfour'
const bytes = Buffer.from(text)

async function* chunks(size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

test.each([1, 2, 5, 100])(
  'lines are found and left out across chunks of %i bytes',
  async (size) => {
    const kept: Uint8Array[] = []
    for await (const part of withoutLines(chunks(size), new Set([2, 3]))) kept.push(part)
    expect(Buffer.concat(kept).toString()).toBe('one\nfour')
    const picked = await pickLines(chunks(size), new Set([1, 3, 4, 9]))
    expect([...picked]).toEqual([
      [1, 'one\n'],
      [3, 'thr\u00e9e\r\n'],
      [4, 'four'],
    ])
  },
)
