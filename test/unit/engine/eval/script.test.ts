import { expect, test } from 'vitest'
import { sampleOf } from '../../../../src/engine/eval/grader.ts'
import { checkScript, runScript } from '../../../../src/engine/eval/script.ts'

const subject = { item: { answer: 'é😀"' }, sample: sampleOf('{"a": [1, 2]}') }
const limits = { milliseconds: 300, megabytes: 32 }
const run = (body: string) => runScript(`function grade(sample, item) { ${body} }`, subject, limits)

test('a script sees the row and the sample, and gives a number', async () => {
  expect(await run('return sample.output_json.a[1] + item.answer.length / 10')).toBeCloseTo(2.4)
  expect(await runScript('const grade = (s) => s.output_text.length', subject)).toBe(13)
})

test.each([
  ['an endless loop', 'while (true) {}', /longer than 300 ms/],
  ['an endless loop that catches', 'while (true) { try { while (true) {} } catch {} }', /longer/],
  [
    'a regular expression without end',
    'return /^(a+)+$/.test("a".repeat(50) + "b") ? 1 : 0',
    /longer/,
  ],
  ['endless recursion', 'return grade(sample, item)', /stack overflow/],
  [
    'endless arrays',
    'const a = []; while (true) a.push(new Uint8Array(1 << 20))',
    /more memory than its 32 MB/,
  ],
  ['one large array', 'return new Uint8Array(1 << 30).length', /more memory/],
  ['endless text', 'let s = "abc"; while (true) s = s + s', /string too long|more memory/],
  ['process', 'return process.pid', /'process' is not defined/],
  ['require', 'return require("fs").length', /'require' is not defined/],
  [
    'the constructor of functions',
    'return this.constructor.constructor("return process")().pid',
    /not defined|undefined/,
  ],
  [
    'the constructor of the row',
    'return item.constructor.constructor("return process.pid")()',
    /not defined/,
  ],
  ['an import', 'import("node:fs"); return globalThis.fetch ? 1 : "none"', /must return a number/],
  ['a promise', 'return Promise.resolve(1)', /something of type object/],
  ['no number', 'return 0 / 0', /found NaN/],
  ['a thrown value', 'throw 5', /no error/],
  ['an error with a trap', 'throw { get message() { while (true) {} } }', /no error|longer/],
  ['its own error', '\n\nthrow new TypeError("bad row")', /TypeError: bad row \(line 3\)/],
])('a script with %s fails cleanly', async (_, body, message) => {
  await expect(run(body)).rejects.toThrow(message)
  expect(await run('return 1')).toBe(1)
})

test('one run leaves nothing for the next', async () => {
  await run('globalThis.kept = 1; Array.prototype.kept = 1; return 1')
  expect(await run('return globalThis.kept === undefined && [].kept === undefined ? 1 : 0')).toBe(1)
})

test('a source is checked without being run', async () => {
  await checkScript('while (true) {}\nfunction grade() { return 1 }')
  await expect(checkScript('function grade( {')).rejects.toThrow(/SyntaxError/)
  await expect(runScript('1', subject)).rejects.toThrow(/no function `grade/)
})
