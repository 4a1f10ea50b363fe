// The figures of a comparison: reads what the rows came to, has them reckoned on a thread, labels the result.

import type { RunColumns } from '../../engine/eval/compare.ts'
import { comparisonText } from '../../engine/eval/compare-text.ts'
import type { ComparisonReport, EvalComparison } from '../db/eval-comparisons.ts'
import { type GradedRow, gradedRows } from '../db/eval-output-items.ts'
import type { EvalRun } from '../db/eval-runs.ts'
import type { Eval } from '../db/evals.ts'
import type { Db } from '../db/pool.ts'
import { Grading } from './grading.ts'

/** Texts of groups; what is longer is cut. */
const MOST_LETTERS = 200

/** All runs have ended. */
export async function reckon(
  db: Db,
  { testing_criteria }: Eval,
  { comparison, runs }: { comparison: EvalComparison; runs: ReadonlyMap<string, EvalRun> },
): Promise<ComparisonReport> {
  const criteria = testing_criteria.map(({ name }) => name)
  const { groups } = comparison
  const own = comparison.runs.map(({ run_id }) => runs.get(run_id)!)
  // Of one and the same file rows are known by their place; else by what they are.
  const isSameFile = own.every(({ items_sha256 }) => items_sha256 === own[0]!.items_sha256)
  const columns: RunColumns[] = []
  for (const run of own) columns.push(await columnsOf(db, run, { criteria, groups, isSameFile }))
  // A thread of its own: minutes of it would hold up every grader.
  await using grading = new Grading()
  const { results, ...rest } = await grading.compare({ criteria, groups, runs: columns })
  const labels = new Map(comparison.runs.map(({ run_id, label }) => [run_id, label]))
  return {
    results: results.map((result, i) => ({
      ...comparison.runs[i]!,
      examples: own[i]!.few_shot?.examples ?? 0,
      prompt_tokens: own[i]!.few_shot?.prompt_tokens ?? 0,
      ...result,
    })),
    ...rest,
    text: comparisonText({ results, ...rest }, labels),
  }
}

async function columnsOf(
  db: Db,
  { id, total }: EvalRun,
  {
    criteria,
    groups,
    isSameFile,
  }: { criteria: readonly string[]; groups: readonly string[]; isSameFile: boolean },
): Promise<RunColumns> {
  const rows = total ?? 0
  const columns: RunColumns = {
    run_id: id,
    keys: [],
    passed: new Uint8Array(rows),
    errored: new Uint8Array(rows),
    criteria: criteria.map(() => ({
      passed: new Uint8Array(rows),
      scores: new Float64Array(rows),
    })),
    groups: groups.map(() => []),
  }
  const seen = new Map<string, number>()
  const keyOf = ({ place, digest }: GradedRow) => {
    if (isSameFile) return String(place)
    const before = seen.get(digest) ?? 0
    seen.set(digest, before + 1)
    return `${digest} ${before}`
  }
  for await (const row of gradedRows(
    db,
    id,
    groups.map((field) => field.split('.')),
  )) {
    const at = columns.keys.length
    columns.keys.push(keyOf(row))
    columns.passed[at] = Number(row.status === 'pass')
    columns.errored[at] = Number(row.status === 'error')
    for (const [i, name] of criteria.entries()) {
      const result = row.results.find((one) => one.name === name)
      columns.criteria[i]!.passed[at] = Number(result?.passed ?? false)
      columns.criteria[i]!.scores[at] = result?.score ?? 0
    }
    for (const [i, value] of row.groups.entries()) columns.groups[i]!.push(textOf(value))
  }
  return columns
}

function textOf(value: unknown): string | null {
  if (value === null || value === undefined) return null
  return (typeof value === 'string' ? value : JSON.stringify(value)).slice(0, MOST_LETTERS)
}
