import { expect, test } from 'vitest'
import {
  accept,
  createSequence,
  position,
  type SequenceOptions,
  takeListed,
} from '../../../../src/engine/infer/sequence.ts'

const EOS = 2
const create = (change: Partial<SequenceOptions> = {}) =>
  createSequence({
    index: 0,
    prompt: [1, 5],
    sampling: { temperature: 0, top_p: 1, seed: 0 },
    max_tokens: 10,
    stop: [],
    eos_token_ids: [EOS, 3],
    ...change,
  })
const bytes = (text: string) => new TextEncoder().encode(text)
const none = new Uint8Array()

test('tokens become text until an end token, which is counted and not shown', () => {
  const sequence = create()
  expect(accept(sequence, 10, bytes('Hello'))).toBe('Hello')
  expect(position(sequence)).toBe(1)
  expect(sequence.finish_reason).toBeUndefined()
  expect(accept(sequence, 3, bytes('<end>'))).toBe('')
  expect(sequence.finish_reason).toBe('stop')
  expect(sequence.tokens).toEqual([10, 3])
})

test('the last allowed token ends it with length', () => {
  const sequence = create({ max_tokens: 2 })
  accept(sequence, 10, bytes('a'))
  expect(accept(sequence, 11, bytes('b'))).toBe('b')
  expect(sequence.finish_reason).toBe('length')
})

test('an end token that is also the last allowed one is a stop', () => {
  const sequence = create({ max_tokens: 1 })
  accept(sequence, EOS, none)
  expect(sequence.finish_reason).toBe('stop')
})

test('no tokens allowed: finished before it begins', () => {
  expect(create({ max_tokens: 0 }).finish_reason).toBe('length')
})

test('a stop text across tokens ends it and is not shown', () => {
  const sequence = create({ stop: ['\n\n'] })
  expect(accept(sequence, 10, bytes('one\n'))).toBe('one')
  expect(accept(sequence, 11, bytes('\ntwo'))).toBe('')
  expect(sequence.finish_reason).toBe('stop')
})

test('what was held back for a stop text is shown when the tokens end', () => {
  const sequence = create({ stop: ['\n\n'], max_tokens: 2 })
  accept(sequence, 10, bytes('one'))
  expect(accept(sequence, 11, bytes('\n'))).toBe('\n')
  expect(sequence.finish_reason).toBe('length')
})

test('half a code point waits for its other half, and is U+FFFD if that never comes', () => {
  const [first, second] = [Uint8Array.of(0xc3), Uint8Array.of(0xa9)]
  const whole = create()
  expect(accept(whole, 10, first)).toBe('')
  expect(accept(whole, 11, second)).toBe('é')
  const half = create()
  accept(half, 10, first)
  expect(accept(half, EOS, none)).toBe('\ufffd')
})

test('an answer that is cut within a code point ends before it', () => {
  const sequence = create({ max_tokens: 2 })
  accept(sequence, 10, bytes('a'))
  expect(accept(sequence, 11, Uint8Array.of(0x62, 0xf0, 0x9f))).toBe('b')
  expect(sequence.finish_reason).toBe('length')
})

const described = (token: string) => ({ token, bytes: [], logprob: -1, top: [] })

/** Accepts pieces as tokens named after their place; what was listed after each. */
function list(pieces: (string | number[])[], change: Partial<SequenceOptions> = {}) {
  const sequence = create(change)
  return pieces.map((piece, i) => {
    const data = typeof piece === 'string' ? bytes(piece) : Uint8Array.from(piece)
    accept(sequence, 10 + i, data, described(`${i}`))
    return takeListed(sequence).map(({ token, offset }) => `${token}@${offset}`)
  })
}

test('a token is listed when its text is shown, with its place in code points', () => {
  expect(list(['😀', 'b', 'c'])).toEqual([['0@0'], ['1@1'], ['2@2']])
})

test('tokens of one code point are listed together, when it is whole', () => {
  expect(list(['a', [0xf0, 0x9f], [], [0x98, 0x80], 'b'])).toEqual([
    ['0@0'],
    [],
    [],
    ['1@1', '2@1', '3@1'],
    ['4@2'],
  ])
})

test('what a stop text takes away wholly is never listed, a token that it cuts is', () => {
  expect(list(['a', 'b.', '.', 'E', 'N', 'D'], { stop: ['..END'] })).toEqual([
    ['0@0'],
    [],
    [],
    [],
    [],
    ['1@1'],
  ])
  // The half code point is the stop text's.
  expect(list(['a', [0xc3], [0xa9]], { stop: ['é'] })).toEqual([['0@0'], [], []])
  // What only looked like one is listed in the end.
  expect(list(['a', '.', '.'], { stop: ['..END'], max_tokens: 3 })).toEqual([
    ['0@0'],
    [],
    ['1@1', '2@2'],
  ])
})

test('at a cut all are listed, the bytes that were left out too; at an end token all but it', () => {
  expect(list(['a', [0xc3]], { max_tokens: 2 })).toEqual([['0@0'], ['1@1']])
  const sequence = create()
  accept(sequence, 10, Uint8Array.of(0xc3), described('half'))
  accept(sequence, EOS, none, described('end'))
  expect(takeListed(sequence).map(({ token }) => token)).toEqual(['half'])
})

test('a finished sequence takes no more tokens', () => {
  const sequence = create({ max_tokens: 0 })
  expect(() => accept(sequence, 10, none)).toThrow(/has ended/)
})
