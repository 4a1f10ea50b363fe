import { expect, test } from 'vitest'
import { createProgress, duration } from '../../../src/cli/progress.ts'
import { timeLeft } from '../../../src/cli/time-left.ts'

const screen = (isTTY: boolean) => {
  const written: string[] = []
  return { written, isTTY, columns: 60, write: (text: string) => written.push(text) > 0 }
}

test('on a terminal every state redraws the same line, cut to its width', () => {
  const out = screen(true)
  const progress = createProgress(out)
  progress.show(0.5, 'step 5/10')
  progress.show(1, 'a text that is longer than the terminal is wide, so that it is cut')
  progress.end()
  expect(out.written[0]).toBe(`\r\u001b[2K[${'#'.repeat(12)}${'-'.repeat(12)}]  50% step 5/10`)
  expect(out.written[1]).toHaveLength('\r\u001b[2K'.length + 59)
  expect(out.written.at(-1)).toBe('\n')
})

test('without a terminal there is a plain line at first, every ten seconds, and at the end', () => {
  let now = 0
  const out = screen(false)
  const progress = createProgress(out, () => now)
  for (let step = 0; step <= 25; step++) {
    now = step * 1000
    progress.show(step / 25, `step ${step}`)
  }
  progress.end()
  progress.end()
  expect(out.written).toEqual([
    '  0% step 0\n',
    ' 40% step 10\n',
    ' 80% step 20\n',
    '100% step 25\n',
  ])
})

test('a share that nobody knows is left out', () => {
  const out = screen(false)
  createProgress(out).show(undefined, 'tiny-model==1.0')
  expect(out.written).toEqual(['tiny-model==1.0\n'])
})

test('the time left comes from the last steps, not from the slow first one', () => {
  let now = 0
  const left = timeLeft(4, () => now)
  expect(left(1, 100)).toBeUndefined()
  now = 60_000
  expect(left(2, 100)).toBe(60_000 * 98)
  for (let step = 3; step <= 10; step++) {
    now += 1000
    left(step, 100)
  }
  expect(left(10, 100)).toBe(90_000)
  expect(left(10, 10)).toBe(0)
})

test.each([
  [0, '0 s'],
  [48_400, '48 s'],
  [185_000, '3 min 05 s'],
])('%i ms read as "%s"', (ms, text) => {
  expect(duration(ms)).toBe(text)
})
