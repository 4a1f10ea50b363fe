import { expect, test } from 'vitest'
import { ClassScores } from '../../../../../src/engine/train/methods/class-scores.ts'

test('macro-F1 is the mean over labels that were true or said, as scikit-learn has it', () => {
  const scores = new ClassScores()
  // sklearn: f1_score([a,a,b,c], [a,b,b,d], average='macro') = (2/3 + 2/3 + 0 + 0) / 4
  for (const [truth, said] of ['aa', 'ab', 'bb', 'cd'] as unknown as [string, string][])
    scores.add([truth], [said])
  expect(scores.accuracy).toBe(0.5)
  expect(scores.macroF1).toBeCloseTo(1 / 3, 12)
})

test('of several labels an answer is right only as a whole', () => {
  const scores = new ClassScores()
  scores.add(['a', 'b'], ['b', 'a'])
  scores.add(['a', 'b'], ['a'])
  scores.add([], [])
  expect(scores.accuracy).toBeCloseTo(2 / 3, 12)
  // a: 2 of 2 and 2; b: 1 said of 2
  expect(scores.macroF1).toBeCloseTo((1 + 2 / 3) / 2, 12)
})

test('spans count whole, by label and place', () => {
  const scores = new ClassScores()
  scores.addSpans(
    [
      { label: 'p', place: '0-2' },
      { label: 'p', place: '4-5' },
    ],
    [
      { label: 'p', place: '0-2' },
      { label: 'q', place: '4-5' },
    ],
    { answers: 6, right: 5 },
  )
  expect(scores.accuracy).toBeCloseTo(5 / 6, 12)
  expect(scores.macroF1).toBeCloseTo(2 / 3 / 2, 12)
})
