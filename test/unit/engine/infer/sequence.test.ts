import { expect, test } from 'vitest'
import {
  accept,
  createSequence,
  position,
  type SequenceOptions,
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

test('a finished sequence takes no more tokens', () => {
  const sequence = create({ max_tokens: 0 })
  expect(() => accept(sequence, 10, none)).toThrow(/has ended/)
})
