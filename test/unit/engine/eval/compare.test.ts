import { expect, test } from 'vitest'
import {
  type CompareRequest,
  type Comparison,
  compareRuns as comparing,
  type RunColumns,
} from '../../../../src/engine/eval/compare.ts'

function compareRuns(request: CompareRequest): Comparison {
  const steps = comparing(request)
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value
}

/** Rows as [key, passed, score, group]. */
const run = (run_id: string, rows: [string, boolean, number, string | null][]): RunColumns => ({
  run_id,
  keys: rows.map(([key]) => key),
  passed: Uint8Array.from(rows, ([, passed]) => Number(passed)),
  errored: new Uint8Array(rows.length),
  criteria: [
    {
      passed: Uint8Array.from(rows, ([, passed]) => Number(passed)),
      scores: Float64Array.from(rows, ([, , score]) => score),
    },
  ],
  groups: [rows.map(([, , , group]) => group)],
})

/** So many rows of a group, of which some pass. */
const rowsOf = (group: string | null, count: number, passed: number) =>
  Array.from({ length: count }, (_, i): [string, boolean, number, string | null] => [
    `${group} ${i}`,
    i < passed,
    i < passed ? 1 : 0.25,
    group,
  ])

test('two runs are tested on the rows that only one of them passed', () => {
  const first = run('a', rowsOf('x', 40, 10))
  const second = run('b', rowsOf('x', 40, 30).toReversed())
  const { results, tests } = compareRuns({ criteria: ['c'], groups: ['g'], runs: [first, second] })
  expect(results.map(({ pass_rate }) => pass_rate.value)).toEqual([0.25, 0.75])
  expect(results[0]!.criteria[0]!.score.value).toBeCloseTo(10 / 40 + (0.25 * 30) / 40, 12)
  // Rows are paired by key, whatever their order: 20 are passed by the second alone.
  expect(tests).toHaveLength(1)
  expect(tests[0]).toMatchObject({ runs: ['a', 'b'], rows: 40 })
  expect(tests[0]!.passes).toMatchObject({ only_first: 0, only_second: 20 })
  expect(tests[0]!.passes.difference.value).toBe(0.5)
  expect(tests[0]!.passes.p_value).toBeCloseTo(2 / 2 ** 20, 12)
  expect(tests[0]!.criteria[0]!.score.p_value).toBeLessThan(0.001)
})

test('a run beside itself differs in nothing', () => {
  const same = rowsOf('x', 30, 11)
  const { tests } = compareRuns({
    criteria: ['c'],
    groups: [],
    runs: [run('a', same), run('b', same)],
  })
  expect(tests[0]!.passes).toEqual({
    difference: { value: 0, low: 0, high: 0 },
    only_first: 0,
    only_second: 0,
    p_value: 1,
  })
  expect(tests[0]!.criteria[0]!.score.p_value).toBe(1)
})

test('the worst group is the one of lowest rate that has enough rows', () => {
  const rows = [...rowsOf('good', 30, 27), ...rowsOf('bad', 12, 3), ...rowsOf('tiny', 2, 0)]
  const { groups, warnings } = compareRuns({
    criteria: ['c'],
    groups: ['g'],
    runs: [run('a', [...rows, ...rowsOf(null, 11, 11)])],
  })
  expect(groups[0]!.groups.map(({ value, rows }) => [value, rows])).toEqual([
    ['good', 30],
    ['bad', 12],
    [null, 11],
    ['tiny', 2],
  ])
  expect(groups[0]!.worst).toMatchObject([{ run_id: 'a', value: 'bad', rows: 12 }])
  expect(groups[0]!.groups[1]!.runs[0]!.mean_scores.c).toBeCloseTo((3 + 9 * 0.25) / 12, 12)
  expect(warnings).toEqual(["11 rows do not have the field 'g'; they are a group."])
})

test('what makes figures doubtful is said', () => {
  const one = run('a', rowsOf('x', 20, 5))
  one.errored[3] = 1
  const { warnings } = compareRuns({
    criteria: ['c'],
    groups: ['g'],
    runs: [one, run('b', rowsOf('x', 12, 5)), run('c', rowsOf('y', 12, 5))],
  })
  expect(warnings).toEqual([
    '1 of 20 rows of a could not be sampled or graded; they count as not passed, with the score 0.',
    'a and b have only 12 rows in common; they are tested on those.',
    'a and c have no row in common, so that nothing is tested on pairs.',
    'b and c have no row in common, so that nothing is tested on pairs.',
  ])
  const without = run('d', rowsOf(null, 12, 5))
  expect(compareRuns({ criteria: ['c'], groups: ['g'], runs: [without] }).warnings).toEqual([
    "No row has the field 'g'.",
  ])
})
