// The table `eval_comparisons`: which runs stand beside each other, and what came of it.

import type { Comparison, RunResult } from '../../engine/eval/compare.ts'
import type { Db } from './pool.ts'

export interface ComparedRun {
  run_id: string
  label: string
  /** Null where the rows brought their samples. */
  model: string | null
}

/** What came of it, with what each run was. */
export interface ComparisonReport extends Omit<Comparison, 'results'> {
  results: (ComparedRun & { examples: number; prompt_tokens: number } & RunResult)[]
  /** The same as a table to read. */
  text: string
}

export interface EvalComparison {
  id: string
  project_id: string
  eval_id: string
  name: string
  status: 'in_progress' | 'completed' | 'failed'
  runs: ComparedRun[]
  groups: string[]
  metadata: Record<string, string> | null
  report: ComparisonReport | null
  error: { code: string; message: string } | null
  created_at: Date
  finished_at: Date | null
}

export async function insertComparison(
  tx: Db,
  one: Pick<
    EvalComparison,
    'id' | 'project_id' | 'eval_id' | 'name' | 'runs' | 'groups' | 'metadata'
  >,
): Promise<EvalComparison> {
  const { rows } = await tx.query<EvalComparison>(
    `insert into eval_comparisons (id, project_id, eval_id, name, runs, groups, metadata)
     values ($1, $2, $3, $4, $5, $6, $7)
     returning *`,
    [
      one.id,
      one.project_id,
      one.eval_id,
      one.name,
      JSON.stringify(one.runs),
      JSON.stringify(one.groups),
      one.metadata,
    ],
  )
  return rows[0]!
}

export async function findComparison(
  db: Db,
  eval_id: string,
  id: string,
): Promise<EvalComparison | undefined> {
  const { rows } = await db.query<EvalComparison>(
    'select * from eval_comparisons where eval_id = $1 and id = $2',
    [eval_id, id],
  )
  return rows[0]
}

export interface ComparisonQuery {
  eval_id: string
  after?: string | undefined
  limit: number
  order: 'asc' | 'desc'
}

export async function listComparisons(db: Db, query: ComparisonQuery): Promise<EvalComparison[]> {
  const [is, order] = query.order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  const { rows } = await db.query<EvalComparison>(
    `select * from eval_comparisons
      where eval_id = $1
        and ($2::text is null
             or seq ${is} (select seq from eval_comparisons where eval_id = $1 and id = $2))
      order by seq ${order}
      limit $3`,
    [query.eval_id, query.after ?? null, query.limit],
  )
  return rows
}

/** Ends it once: as it was ended first, it stays. */
export async function endComparison(
  db: Db,
  id: string,
  {
    report = null,
    error = null,
  }: { report?: EvalComparison['report']; error?: EvalComparison['error'] },
): Promise<void> {
  await db.query(
    `update eval_comparisons
        set status = $2, report = $3, error = $4, finished_at = now()
      where id = $1 and status = 'in_progress'`,
    [id, error ? 'failed' : 'completed', report && JSON.stringify(report), error],
  )
}
