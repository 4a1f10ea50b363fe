// The table `evals`: criteria under a name.

import type { Grader } from '../../engine/eval/grader.ts'
import type { Db } from './pool.ts'

/** As sent; what else it could be is refused. */
export interface DataSourceConfig {
  type: 'custom'
  item_schema: Record<string, unknown>
  include_sample_schema?: boolean
}

export interface Eval {
  id: string
  project_id: string
  name: string
  data_source_config: DataSourceConfig
  testing_criteria: Grader[]
  metadata: Record<string, string> | null
  created_at: Date
  updated_at: Date
}

/** How weights are asked; over rows that are pinned with the work. */
export interface PinnedEval {
  eval_id: string
  /** As in a run, without a model. */
  data_source: Record<string, unknown>
}

export async function insertEval(
  tx: Db,
  one: Omit<Eval, 'created_at' | 'updated_at'>,
): Promise<Eval> {
  const { rows } = await tx.query<Eval>(
    `insert into evals (id, project_id, name, data_source_config, testing_criteria, metadata)
     values ($1, $2, $3, $4, $5, $6)
     returning *`,
    [
      one.id,
      one.project_id,
      one.name,
      JSON.stringify(one.data_source_config),
      JSON.stringify(one.testing_criteria),
      one.metadata,
    ],
  )
  return rows[0]!
}

export async function findEval(db: Db, project_id: string, id: string): Promise<Eval | undefined> {
  const { rows } = await db.query<Eval>('select * from evals where project_id = $1 and id = $2', [
    project_id,
    id,
  ])
  return rows[0]
}

export interface EvalQuery {
  after?: string | undefined
  limit: number
  order: 'asc' | 'desc'
  order_by: 'created_at' | 'updated_at'
}

/** `limit` of them behind `after`. */
export async function listEvals(db: Db, project_id: string, query: EvalQuery): Promise<Eval[]> {
  const [is, order] = query.order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  const by = query.order_by === 'created_at' ? 'created_at' : 'updated_at'
  const { rows } = await db.query<Eval>(
    `select * from evals
      where project_id = $1
        and ($2::text is null
             or (${by}, seq) ${is} (select ${by}, seq from evals where project_id = $1 and id = $2))
      order by ${by} ${order}, seq ${order}
      limit $3`,
    [project_id, query.after ?? null, query.limit],
  )
  return rows
}

/** What is undefined stays. */
export async function updateEval(
  tx: Db,
  project_id: string,
  id: string,
  to: { name: string | undefined; metadata: Record<string, string> | null | undefined },
): Promise<Eval | undefined> {
  const { rows } = await tx.query<Eval>(
    `update evals
        set name = coalesce($3, name), metadata = case when $4 then $5::jsonb else metadata end,
            updated_at = now()
      where project_id = $1 and id = $2
      returning *`,
    [project_id, id, to.name ?? null, to.metadata !== undefined, to.metadata ?? null],
  )
  return rows[0]
}

/** With its runs and all that they found. */
export async function deleteEval(tx: Db, project_id: string, id: string): Promise<boolean> {
  const { rowCount } = await tx.query('delete from evals where project_id = $1 and id = $2', [
    project_id,
    id,
  ])
  return rowCount === 1
}
