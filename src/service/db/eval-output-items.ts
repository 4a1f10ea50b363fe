// The table `eval_output_items`: each row of a run, graded once; and the sums that are kept in step with it.

import type { RunMessage } from './eval-runs.ts'
import type { Db } from './pool.ts'

export type OutputItemStatus = 'pass' | 'fail' | 'error'

export interface CriterionResult {
  name: string
  type: string
  score: number
  passed: boolean
  /** What a model said that was asked for the grade, or why there is none. */
  sample: Record<string, unknown> | null
}

export interface OutputSample {
  input: RunMessage[]
  output: RunMessage[]
  finish_reason: string
  model: string
  usage: {
    total_tokens: number
    completion_tokens: number
    prompt_tokens: number
    cached_tokens: number
  }
  error: { code: string; message: string } | null
  temperature: number
  max_completion_tokens: number
  top_p: number
  seed: number
}

export interface OutputItem {
  id: string
  run_id: string
  datasource_item_id: number
  status: OutputItemStatus
  datasource_item: Record<string, unknown>
  results: CriterionResult[]
  sample: OutputSample
  created_at: Date
}

export type NewOutputItem = Omit<OutputItem, 'created_at'>

/** Keeps rows and adds them to the sums of their run; rows that are there already are left out of both. */
export async function insertOutputItems(
  tx: Db,
  run_id: string,
  items: readonly NewOutputItem[],
  usage: ReadonlyMap<
    string,
    { invocation_count: number; prompt_tokens: number; completion_tokens: number }
  >,
): Promise<void> {
  const kept: NewOutputItem[] = []
  for (const item of items) {
    const { rowCount } = await tx.query(
      `insert into eval_output_items
         (id, run_id, datasource_item_id, status, datasource_item, results, sample)
       values ($1, $2, $3, $4, $5, $6, $7)
       on conflict (run_id, datasource_item_id) do nothing`,
      [
        item.id,
        run_id,
        item.datasource_item_id,
        item.status,
        JSON.stringify(item.datasource_item),
        JSON.stringify(item.results),
        JSON.stringify(item.sample),
      ],
    )
    if (rowCount === 1) kept.push(item)
  }
  const count = (status: OutputItemStatus) => kept.filter((item) => item.status === status).length
  await tx.query(
    `update eval_runs
        set passed = passed + $2, failed = failed + $3, errored = errored + $4
      where id = $1`,
    [run_id, count('pass'), count('fail'), count('error')],
  )
  const results = kept.flatMap((item) => item.results)
  for (const criterion of new Set(results.map(({ name }) => name))) {
    const own = results.filter(({ name }) => name === criterion)
    const passed = own.filter((result) => result.passed).length
    await tx.query(
      `insert into eval_run_criteria (run_id, criterion, passed, failed, score_sum)
       values ($1, $2, $3, $4, $5)
       on conflict (run_id, criterion) do update
          set passed = eval_run_criteria.passed + excluded.passed,
              failed = eval_run_criteria.failed + excluded.failed,
              score_sum = eval_run_criteria.score_sum + excluded.score_sum`,
      [
        run_id,
        criterion,
        passed,
        own.length - passed,
        own.reduce((sum, { score }) => sum + score, 0),
      ],
    )
  }
  for (const [model, used] of usage)
    await tx.query(
      `insert into eval_run_usage (run_id, model, invocation_count, prompt_tokens, completion_tokens)
       values ($1, $2, $3, $4, $5)
       on conflict (run_id, model) do update
          set invocation_count = eval_run_usage.invocation_count + excluded.invocation_count,
              prompt_tokens = eval_run_usage.prompt_tokens + excluded.prompt_tokens,
              completion_tokens = eval_run_usage.completion_tokens + excluded.completion_tokens`,
      [run_id, model, used.invocation_count, used.prompt_tokens, used.completion_tokens],
    )
}

/** Which rows of the data are done. */
export async function doneItems(db: Db, run_id: string): Promise<Set<number>> {
  const { rows } = await db.query<{ n: number }>(
    'select datasource_item_id as n from eval_output_items where run_id = $1',
    [run_id],
  )
  return new Set(rows.map(({ n }) => n))
}

export async function findOutputItem(
  db: Db,
  run_id: string,
  id: string,
): Promise<OutputItem | undefined> {
  const { rows } = await db.query<OutputItem>(
    'select * from eval_output_items where run_id = $1 and id = $2',
    [run_id, id],
  )
  return rows[0]
}

export interface OutputItemQuery {
  run_id: string
  after?: string | undefined
  limit: number
  order: 'asc' | 'desc'
  status?: 'pass' | 'fail' | undefined
}

/** In the order of the data. */
export async function listOutputItems(db: Db, query: OutputItemQuery): Promise<OutputItem[]> {
  const [is, order] = query.order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  const { rows } = await db.query<OutputItem>(
    `select * from eval_output_items
      where run_id = $1
        and ($2::text is null
             or datasource_item_id ${is}
                (select datasource_item_id from eval_output_items where run_id = $1 and id = $2))
        and ($3::text is null or status = $3)
      order by datasource_item_id ${order}
      limit $4`,
    [query.run_id, query.after ?? null, query.status ?? null, query.limit],
  )
  return rows
}

/** What a comparison needs of a row. */
export interface GradedRow {
  /** Of the row in its data. */
  place: number
  status: OutputItemStatus
  results: CriterionResult[]
  /** Of the row itself: equal rows have equal digests. */
  digest: string
  /** What stands in each field that was asked for; null where the row has it not. */
  groups: unknown[]
}

const ROWS_A_PAGE = 500

/** Every row of a run in the order of its data; `fields` are paths into the row. */
export async function* gradedRows(
  db: Db,
  run_id: string,
  fields: readonly (readonly string[])[],
): AsyncGenerator<GradedRow, void, undefined> {
  const groups = fields.map((_, i) => `datasource_item #> $${i + 3}::text[]`).join(', ')
  for (let after = -1; ; ) {
    const { rows } = await db.query<GradedRow>(
      `select datasource_item_id as place, status, results, md5(datasource_item::text) as digest,
              json_build_array(${groups}) as groups
         from eval_output_items
        where run_id = $1 and datasource_item_id > $2
        order by datasource_item_id
        limit ${ROWS_A_PAGE}`,
      [run_id, after, ...fields],
    )
    yield* rows
    if (rows.length < ROWS_A_PAGE) return
    after = rows.at(-1)!.place
  }
}
