import { expect, test } from 'vitest'
import { cutTexts } from '../../../../src/engine/tokenizer/cut-texts.ts'

const CLS = 101
const SEP = 102

test('one text loses its end and keeps what stands around it', () => {
  const whole = { ids: [CLS, 5, 6, 7, 8, SEP], types: [0, 0, 0, 0, 0, 0] }
  expect(cutTexts(whole, [[5, 6, 7, 8]], 4)).toEqual({
    ids: [CLS, 5, 6, SEP],
    types: [0, 0, 0, 0],
  })
})

test('of two texts the longer one is cut until both are alike, kinds and borders kept', () => {
  const whole = {
    ids: [CLS, 5, 6, 7, SEP, 5, 6, 7, 8, 9, SEP],
    types: [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
  }
  const texts = [
    [5, 6, 7],
    [5, 6, 7, 8, 9],
  ]
  expect(cutTexts(whole, texts, 8)).toEqual({
    ids: [CLS, 5, 6, SEP, 5, 6, 7, SEP],
    types: [0, 0, 0, 0, 1, 1, 1, 1],
  })
})

test('a limit below what the model itself puts in is an error', () => {
  const whole = { ids: [CLS, 5, SEP], types: [0, 0, 0] }
  expect(() => cutTexts(whole, [[5]], 1)).toThrow('1 tokens hold no text')
})
