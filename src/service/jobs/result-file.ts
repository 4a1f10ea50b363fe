// The result file of a job: CSV with one row a step, blank where nothing was measured.

import type { StepMetrics } from '../../engine/train/request.ts'

/** The columns, in the order and under the names that OpenAI's result files have. */
export const RESULT_COLUMNS = [
  'step',
  'train_loss',
  'train_accuracy',
  'valid_loss',
  'valid_mean_token_accuracy',
] as const

/** The whole file; ends with a newline. */
export const resultCsv = (steps: readonly StepMetrics[]): string =>
  [RESULT_COLUMNS.join(','), ...steps.map(row)].map((line) => `${line}\n`).join('')

const row = (m: StepMetrics): string =>
  [
    m.step,
    cell(m.train_loss),
    cell(m.train_mean_token_accuracy),
    cell(m.valid_loss),
    cell(m.valid_mean_token_accuracy),
  ].join(',')

const cell = (value: number | undefined): string =>
  value === undefined ? '' : String(Number(value.toFixed(5)))
