import { expect, test } from 'vitest'
import type { StepMetrics } from '../../../../src/engine/train/request.ts'
import {
  checkpointMetrics,
  eventText,
  isTold,
  stepData,
  stepText,
} from '../../../../src/service/jobs/event-texts.ts'

const metrics: StepMetrics = {
  step: 60,
  total_steps: 200,
  epoch: 1,
  train_loss: 0.7349,
  train_mean_token_accuracy: 0.5,
  learning_rate: 1e-4,
  grad_norm: 2,
}

test('a step is told with two decimals, and with the validation losses that were measured', () => {
  expect(stepText(metrics)).toBe('Step 60/200: training loss=0.73')
  expect(stepText({ ...metrics, valid_loss: 1.456 })).toBe(
    'Step 60/200: training loss=0.73, validation loss=1.46',
  )
  expect(stepText({ ...metrics, valid_loss: 1.13, full_valid_loss: 1.12 })).toBe(
    'Step 60/200: training loss=0.73, validation loss=1.13, full validation loss=1.12',
  )
})

test('data of an event has the names of the API and leaves out what was not measured', () => {
  const measured = { ...metrics, valid_loss: 1.5, valid_mean_token_accuracy: 0.25 }
  const data = {
    step: 60,
    train_loss: 0.7349,
    train_mean_token_accuracy: 0.5,
    valid_loss: 1.5,
    valid_mean_token_accuracy: 0.25,
  }
  expect(stepData(measured)).toEqual({ ...data, total_steps: 200 })
  expect(checkpointMetrics(measured)).toEqual(data)
})

test.each([1, 7, 199, 200])('all of %i steps are told', (total) => {
  for (let step = 1; step <= total; step++) expect(isTold(step, total)).toBe(true)
})

test.each([201, 399, 1000, 12_345])(
  'of %i steps 200 are told, evenly and with the last',
  (total) => {
    const told = Array.from({ length: total }, (_, i) => i + 1).filter((s) => isTold(s, total))
    expect(told).toHaveLength(200)
    expect(told.at(-1)).toBe(total)
    const gaps = told.map((step, i) => step - (told[i - 1] ?? 0))
    expect(Math.max(...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(1)
  },
)

test('both files are named while they are looked at', () => {
  expect(eventText.validating('file-a', null)).toBe('Validating training file: file-a')
  expect(eventText.validating('file-a', 'file-b')).toBe(
    'Validating training file: file-a and validation file: file-b',
  )
})
