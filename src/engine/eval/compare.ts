// Several runs of one eval beside each other: what each came to, which differ, and in which group each is worst. Pure.

import { bootstrapMean, type Estimate, mcnemar, passRate, permutationTest } from './statistics.ts'

/** The rows of one run in columns, in the order of its data. */
export interface RunColumns {
  run_id: string
  /** Rows of two runs with one key are the same row. */
  keys: string[]
  /** 1 where the row passed every criterion. */
  passed: Uint8Array
  /** 1 where the row could not be sampled or graded; such a row has not passed, and its score is 0. */
  errored: Uint8Array
  /** One for each criterion. */
  criteria: { passed: Uint8Array; scores: Float64Array }[]
  /** One for each field of `groups`: null where the row has it not. */
  groups: (string | null)[][]
}

export interface CompareRequest {
  criteria: string[]
  /** Fields of the rows by which they are grouped. */
  groups: string[]
  runs: RunColumns[]
}

export interface RunResult {
  run_id: string
  rows: number
  errored: number
  /** Of rows that passed every criterion. */
  pass_rate: Estimate
  criteria: { name: string; pass_rate: Estimate; score: Estimate }[]
}

/** Of two runs on the rows that both have; differences are the second's less the first's. */
export interface PairedTest {
  runs: [first: string, second: string]
  rows: number
  passes: PassTest
  criteria: { name: string; passes: PassTest; score: { difference: Estimate; p_value: number } }[]
}

export interface PassTest {
  difference: Estimate
  only_first: number
  only_second: number
  p_value: number
}

export interface GroupResult {
  /** Null: the rows without the field. */
  value: string | null
  /** Of the run that has the most of them. */
  rows: number
  runs: { run_id: string; rows: number; pass_rate: Estimate; mean_scores: Record<string, number> }[]
}

export interface GroupedBy {
  field: string
  /** The largest first. */
  groups: GroupResult[]
  /** Groups that are too many to be shown; the worst are among all. */
  left_out: number
  /** For each run the group of lowest pass rate; of those with enough rows, where there are any. */
  worst: { run_id: string; value: string | null; rows: number; pass_rate: Estimate }[]
}

export interface Comparison {
  results: RunResult[]
  tests: PairedTest[]
  groups: GroupedBy[]
  /** What a reader should know before trusting the figures. */
  warnings: string[]
}

/** In a smaller group one row decides. */
export const ENOUGH_ROWS = 10
const MOST_GROUPS = 200

/** Stops between two runs or pairs, so that whoever drives it can tell slow from endless. */
export function* compareRuns({
  criteria,
  groups,
  runs,
}: CompareRequest): Generator<void, Comparison, undefined> {
  const warnings: string[] = []
  for (const { run_id, errored, keys } of runs) {
    const count = countOf(errored)
    if (count > 0)
      warnings.push(
        `${count} of ${keys.length} rows of ${run_id} could not be sampled or graded; they count as not passed, with the score 0.`,
      )
  }
  const results: RunResult[] = []
  for (const run of runs) {
    results.push(resultOf(criteria, run))
    yield
  }
  const tests: PairedTest[] = []
  for (const [i, first] of runs.entries())
    for (const second of runs.slice(i + 1)) {
      tests.push(testPair(criteria, first, second))
      yield
    }
  for (const { runs: pair, rows } of tests)
    if (pair.some((id) => rows < runs.find(({ run_id }) => run_id === id)!.keys.length))
      warnings.push(
        rows === 0
          ? `${pair.join(' and ')} have no row in common, so that nothing is tested on pairs.`
          : `${pair.join(' and ')} have only ${rows} rows in common; they are tested on those.`,
      )
  const grouped = groups.map((field, at) => groupBy({ field, at, criteria, runs }))
  for (const { field, groups: found } of grouped) {
    const without = found.find(({ value }) => value === null)
    if (found.length === 1 && without) warnings.push(`No row has the field '${field}'.`)
    else if (without)
      warnings.push(`${without.rows} rows do not have the field '${field}'; they are a group.`)
  }
  return { results, tests, groups: grouped, warnings }
}

function resultOf(names: readonly string[], run: RunColumns): RunResult {
  const rows = run.keys.length
  return {
    run_id: run.run_id,
    rows,
    errored: countOf(run.errored),
    pass_rate: passRate(countOf(run.passed), rows),
    criteria: run.criteria.map(({ passed, scores }, i) => ({
      name: names[i]!,
      pass_rate: passRate(countOf(passed), rows),
      score: bootstrapMean(scores),
    })),
  }
}

function testPair(names: readonly string[], first: RunColumns, second: RunColumns): PairedTest {
  const places = new Map(second.keys.map((key, place) => [key, place]))
  const pairs: [number, number][] = first.keys.flatMap((key, place) => {
    const other = places.get(key)
    return other === undefined ? [] : [[place, other]]
  })
  const difference = (a: Float64Array | Uint8Array, b: Float64Array | Uint8Array) =>
    Float64Array.from(pairs, ([i, j]) => b[j]! - a[i]!)
  const passes = (a: Uint8Array, b: Uint8Array): PassTest => {
    const differences = difference(a, b)
    const only_first = differences.filter((one) => one < 0).length
    const only_second = differences.filter((one) => one > 0).length
    return {
      difference: bootstrapMean(differences),
      only_first,
      only_second,
      p_value: mcnemar(only_first, only_second),
    }
  }
  return {
    runs: [first.run_id, second.run_id],
    rows: pairs.length,
    passes: passes(first.passed, second.passed),
    criteria: names.map((name, i) => {
      const [a, b] = [first.criteria[i]!, second.criteria[i]!]
      const differences = difference(a.scores, b.scores)
      return {
        name,
        passes: passes(a.passed, b.passed),
        score: { difference: bootstrapMean(differences), p_value: permutationTest(differences) },
      }
    }),
  }
}

function groupBy({
  field,
  at,
  criteria,
  runs,
}: {
  field: string
  at: number
  criteria: readonly string[]
  runs: readonly RunColumns[]
}): GroupedBy {
  const rowsOf = new Map<string | null, number[][]>()
  for (const [r, run] of runs.entries())
    for (const [row, value] of run.groups[at]!.entries()) {
      const known = rowsOf.get(value) ?? runs.map(() => [])
      known[r]!.push(row)
      rowsOf.set(value, known)
    }
  const all = [...rowsOf].map(
    ([value, rows]): GroupResult => ({
      value,
      rows: Math.max(...rows.map(({ length }) => length)),
      runs: runs.flatMap((run, r) =>
        rows[r]!.length === 0 ? [] : [{ run_id: run.run_id, ...partOf(run, rows[r]!, criteria) }],
      ),
    }),
  )
  all.sort((a, b) => b.rows - a.rows || compareValues(a.value, b.value))
  return {
    field,
    groups: all.slice(0, MOST_GROUPS),
    left_out: Math.max(0, all.length - MOST_GROUPS),
    worst: runs.flatMap(({ run_id }) => worstOf(run_id, all) ?? []),
  }
}

function partOf(run: RunColumns, rows: readonly number[], criteria: readonly string[]) {
  const passed = rows.filter((row) => run.passed[row] === 1).length
  const mean_scores = Object.fromEntries(
    criteria.map((name, i) => {
      const { scores } = run.criteria[i]!
      return [name, rows.reduce((total, row) => total + scores[row]!, 0) / rows.length]
    }),
  )
  return { rows: rows.length, pass_rate: passRate(passed, rows.length), mean_scores }
}

/** Of equal rates the group with more rows, of which one is surer. */
function worstOf(run_id: string, groups: readonly GroupResult[]) {
  const own = groups.flatMap(({ value, runs }) => {
    const part = runs.find((run) => run.run_id === run_id)
    return part ? [{ run_id, value, rows: part.rows, pass_rate: part.pass_rate }] : []
  })
  const enough = own.filter(({ rows }) => rows >= ENOUGH_ROWS)
  return (enough.length > 0 ? enough : own).toSorted(
    (a, b) =>
      a.pass_rate.value - b.pass_rate.value || b.rows - a.rows || compareValues(a.value, b.value),
  )[0]
}

/** By code units, rows without the field last. */
const compareValues = (a: string | null, b: string | null): number =>
  a === b ? 0 : b === null || (a !== null && a < b) ? -1 : 1

const countOf = (flags: Uint8Array): number => flags.reduce((total, flag) => total + flag, 0)
