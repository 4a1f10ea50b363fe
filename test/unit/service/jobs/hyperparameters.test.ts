import { expect, test } from 'vitest'
import {
  mergeHyperparameters,
  resolvedHyperparameters,
} from '../../../../src/service/jobs/hyperparameters.ts'

test('what is not sent is auto', () => {
  expect(mergeHyperparameters(undefined, undefined)).toEqual({
    n_epochs: 'auto',
    batch_size: 'auto',
    learning_rate_multiplier: 'auto',
  })
})

test('the method wins over the deprecated place, key by key', () => {
  expect(
    mergeHyperparameters({ n_epochs: 2, batch_size: 4 }, { n_epochs: 3, weight_decay: 0.1 }),
  ).toEqual({ n_epochs: 3, batch_size: 4, learning_rate_multiplier: 'auto', weight_decay: 0.1 })
})

test('a plan turns auto into numbers and adds nothing that was not sent', () => {
  const kept = mergeHyperparameters(undefined, { n_epochs: 3 })
  const plan = { n_epochs: 3, batch_size: 8, learning_rate_multiplier: 1.5, weight_decay: 0.01 }
  expect(resolvedHyperparameters(kept, plan)).toEqual({
    n_epochs: 3,
    batch_size: 8,
    learning_rate_multiplier: 1.5,
  })
  expect(resolvedHyperparameters(kept, null)).toBe(kept)
})
