import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createStops, flushStops, passStops } from '../../../../src/engine/infer/stops.ts'

function run(texts: string[], pieces: string[]) {
  const stops = createStops(texts)
  const shown = pieces.map((piece) => passStops(stops, piece))
  return { shown, rest: flushStops(stops), hit: stops.hit }
}

test('without stop texts everything is shown at once', () => {
  expect(run([], ['ab', 'c'])).toEqual({ shown: ['ab', 'c'], rest: '', hit: false })
})

test('an empty stop text stops nothing', () => {
  expect(run([''], ['ab'])).toEqual({ shown: ['ab'], rest: '', hit: false })
})

test('a stop text inside a piece ends the text before it', () => {
  expect(run(['END'], ['say END now', 'more'])).toEqual({
    shown: ['say ', ''],
    rest: '',
    hit: true,
  })
})

test('a stop text across pieces is never shown in part', () => {
  expect(run(['END'], ['an E', 'N', 'D!'])).toEqual({ shown: ['an ', '', ''], rest: '', hit: true })
})

test('what turns out to be no stop text is shown after all', () => {
  expect(run(['END'], ['an E', 'N', 'E', 'x'])).toEqual({
    shown: ['an ', '', 'EN', 'Ex'],
    rest: '',
    hit: false,
  })
})

test('the text ends within a possible stop text: it is given at the end', () => {
  expect(run(['END'], ['an EN'])).toEqual({ shown: ['an '], rest: 'EN', hit: false })
})

test('the stop text that is complete first counts; the longer one among those', () => {
  expect(run(['abcd', 'bc'], ['abcd']).shown).toEqual(['a'])
  expect(run(['bc', 'abc'], ['xabc']).shown).toEqual(['x'])
  expect(run(['abc', 'bc'], ['xabc']).shown).toEqual(['x'])
})

test('however the text is cut into pieces, the same is shown', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', '\n', '😀'), maxLength: 4 })
  fc.assert(
    fc.property(
      fc.array(word, { maxLength: 12 }),
      fc.array(word, { maxLength: 4 }),
      (pieces, texts) => {
        const whole = pieces.join('')
        const real = texts.filter((text) => text !== '')
        const ends = real.flatMap((text) => {
          const at = whole.indexOf(text)
          return at < 0 ? [] : [{ end: at + text.length, at }]
        })
        const first = ends.sort((a, b) => a.end - b.end || a.at - b.at)[0]
        const { shown, rest, hit } = run(texts, pieces)
        expect(shown.join('') + rest).toBe(first ? whole.slice(0, first.at) : whole)
        expect(hit).toBe(first !== undefined)
      },
    ),
    { numRuns: 2000, seed: 1 },
  )
})
