// The result file of a job: CSV with one row a step, blank where nothing was measured.

import type { Column } from '../../engine/train/methods/method.ts'
import type { StepMetrics } from '../../engine/train/request.ts'

/** The whole file with the columns of a method after `step`; ends with a newline. */
export const resultCsv = (steps: readonly StepMetrics[], columns: readonly Column[]): string =>
  [
    ['step', ...columns.map(({ name }) => name)],
    ...steps.map((m) => [m.step, ...columns.map(({ metric }) => cell(m[metric]))]),
  ]
    .map((cells) => `${cells.join(',')}\n`)
    .join('')

const cell = (value: number | undefined): string =>
  value === undefined ? '' : String(Number(value.toFixed(5)))
