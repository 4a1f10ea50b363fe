import { expect, test } from 'vitest'
import {
  mergeHyperparameters,
  resolvedHyperparameters,
} from '../../../../src/service/jobs/hyperparameters.ts'

test('what is not sent is auto', () => {
  expect(mergeHyperparameters('supervised', undefined, undefined)).toEqual({
    n_epochs: 'auto',
    batch_size: 'auto',
    learning_rate_multiplier: 'auto',
  })
})

test('a method has its own beside them', () => {
  const kept = mergeHyperparameters('dpo', undefined, undefined)
  expect(kept).toMatchObject({ n_epochs: 'auto', beta: 'auto' })
  const plan = { n_epochs: 3, batch_size: 8, learning_rate_multiplier: 1, beta: 0.1 }
  expect(resolvedHyperparameters(kept, { ...plan, precision: 'fp32' })).toEqual(plan)
})

test('the method wins over the deprecated place, key by key', () => {
  expect(
    mergeHyperparameters(
      'supervised',
      { n_epochs: 2, batch_size: 4 },
      { n_epochs: 3, weight_decay: 0.1 },
    ),
  ).toEqual({ n_epochs: 3, batch_size: 4, learning_rate_multiplier: 'auto', weight_decay: 0.1 })
})

test('a plan turns auto into numbers and adds nothing that was not sent', () => {
  const kept = mergeHyperparameters('supervised', undefined, { n_epochs: 3 })
  const plan = {
    n_epochs: 3,
    batch_size: 8,
    learning_rate_multiplier: 1.5,
    weight_decay: 0.01,
    precision: 'int8',
  } as const
  expect(resolvedHyperparameters(kept, plan)).toEqual({
    n_epochs: 3,
    batch_size: 8,
    learning_rate_multiplier: 1.5,
  })
  expect(resolvedHyperparameters(kept, null)).toBe(kept)
  const asked = { ...kept, precision: 'auto' } as const
  expect(resolvedHyperparameters(asked, plan)).toMatchObject({ precision: 'int8' })
})
