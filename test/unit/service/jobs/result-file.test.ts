import { expect, test } from 'vitest'
import { supervised } from '../../../../src/engine/train/methods/supervised.ts'
import { resultCsv } from '../../../../src/service/jobs/result-file.ts'

const step = (step: number, train_loss: number, train_mean_token_accuracy: number) => ({
  step,
  total_steps: 2,
  epoch: 1,
  train_loss,
  train_mean_token_accuracy,
  learning_rate: 1e-4,
  grad_norm: 1,
})

test('the result file has one row a step and blank cells where no validation ran', () => {
  const steps = [
    step(1, 1.523471, 0.75),
    { ...step(2, 0.57719, 0.8275), valid_loss: 0.51, valid_mean_token_accuracy: 0.84 },
  ]
  const csv = resultCsv(steps, supervised.columns)
  expect(csv).toBe(
    'step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n' +
      '1,1.52347,0.75,,\n' +
      '2,0.57719,0.8275,0.51,0.84\n',
  )
})
