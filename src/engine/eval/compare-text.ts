// A comparison as a table to read, in Markdown. Pure.

import type { Comparison } from './compare.ts'
import type { Estimate } from './statistics.ts'

/** `labels` by run. */
export function comparisonText(
  { results, tests, groups, warnings }: Comparison,
  labels: ReadonlyMap<string, string>,
): string {
  const labelOf = (run_id: string) => labels.get(run_id) ?? run_id
  const first = results[0]
  const lines = [
    row(['run', 'rows', 'passed', ...(first?.criteria ?? []).map(({ name }) => name)]),
    row(['---', '---', '---', ...(first?.criteria ?? []).map(() => '---')]),
    ...results.map(({ run_id, rows, pass_rate, criteria }) =>
      row([
        labelOf(run_id),
        String(rows),
        rate(pass_rate),
        ...criteria.map(({ score }) => mean(score)),
      ]),
    ),
    '',
    ...tests.map(
      ({ runs: [a, b], rows, passes }) =>
        `${labelOf(b)} against ${labelOf(a)} on ${rows} rows: ${signed(passes.difference)} points, p ${probability(passes.p_value)} (${passes.only_second} passed by the first named alone, ${passes.only_first} by the other).`,
    ),
    ...groups.flatMap(({ field, worst }) =>
      worst.map(
        ({ run_id, value, rows, pass_rate }) =>
          `Worst ${field} of ${labelOf(run_id)}: ${value ?? '(rows without it)'}, ${rate(pass_rate)} of ${rows} rows.`,
      ),
    ),
    ...warnings.map((warning) => {
      let said = warning
      for (const [run_id, label] of labels) said = said.replaceAll(run_id, label)
      return `Note: ${said}`
    }),
  ]
  return lines.join('\n')
}

const row = (cells: readonly string[]) =>
  `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
const percent = (share: number) => (100 * share).toFixed(1)
const rate = ({ value, low, high }: Estimate) =>
  `${percent(value)} % (${percent(low)} … ${percent(high)})`
const mean = ({ value, low, high }: Estimate) =>
  `${value.toFixed(3)} (${low.toFixed(3)} … ${high.toFixed(3)})`
const signed = ({ value, low, high }: Estimate) =>
  `${value > 0 ? '+' : ''}${percent(value)} (${percent(low)} … ${percent(high)})`
const probability = (p: number) => (p < 0.001 ? '< 0.001' : `= ${p.toFixed(3)}`)
