// The tables `batches` and `batch_answers`. Transitions are guarded in the statement, writes of a worker by its lease.

import type { Db } from './pool.ts'

export type BatchStatus =
  | 'validating'
  | 'failed'
  | 'in_progress'
  | 'finalizing'
  | 'completed'
  | 'expired'
  | 'cancelling'
  | 'cancelled'

/** What is wrong with a line of the input; `line` is null where it is the whole file. */
export interface LineError {
  code: string
  message: string
  line: number | null
  param: string | null
}

export interface Batch {
  id: string
  project_id: string
  endpoint: string
  completion_window: string
  status: BatchStatus
  input_file_id: string
  /** Null once it has ended: nothing reads the input any more. */
  input_sha256: string | null
  model: string | null
  errors: LineError[] | null
  output_file_id: string | null
  error_file_id: string | null
  output_expires_after_seconds: number
  metadata: Record<string, string> | null
  total: number
  completed: number
  failed: number
  input_tokens: number
  cached_tokens: number
  output_tokens: number
  created_at: Date
  expires_at: Date
  in_progress_at: Date | null
  finalizing_at: Date | null
  cancelling_at: Date | null
  finished_at: Date | null
}

export type NewBatch = Pick<
  Batch,
  | 'id'
  | 'project_id'
  | 'endpoint'
  | 'completion_window'
  | 'input_file_id'
  | 'input_sha256'
  | 'output_expires_after_seconds'
  | 'metadata'
> & { window_seconds: number }

/** Its work must be there already. */
export async function insertBatch(tx: Db, batch: NewBatch): Promise<Batch> {
  const { rows } = await tx.query<Batch>(
    `insert into batches
       (id, project_id, endpoint, completion_window, input_file_id, input_sha256,
        output_expires_after_seconds, metadata, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))
     returning *`,
    [
      batch.id,
      batch.project_id,
      batch.endpoint,
      batch.completion_window,
      batch.input_file_id,
      batch.input_sha256,
      batch.output_expires_after_seconds,
      batch.metadata && JSON.stringify(batch.metadata),
      batch.window_seconds,
    ],
  )
  return rows[0]!
}

export async function findBatch(
  db: Db,
  project_id: string,
  id: string,
): Promise<Batch | undefined> {
  const { rows } = await db.query<Batch>(
    'select * from batches where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** Newest first, older than the batch `after`. */
export async function listBatches(
  db: Db,
  query: { project_id: string; after?: string | undefined; limit: number },
): Promise<Batch[]> {
  const { rows } = await db.query<Batch>(
    `select * from batches
      where project_id = $1
        and ($2::text is null
             or seq < (select seq from batches where project_id = $1 and id = $2))
      order by seq desc
      limit $3`,
    [query.project_id, query.after ?? null, query.limit],
  )
  return rows
}

/** The lines have been checked, so many of them. Without effect where it is further already. */
export async function startBatch(
  tx: Db,
  id: string,
  { total, model }: { total: number; model: string | null },
): Promise<void> {
  await tx.query(
    `update batches set status = 'in_progress', in_progress_at = now(), total = $2, model = $3
      where id = $1 and status = 'validating'`,
    [id, total, model],
  )
}

/** Asks for its end; undefined where it has ended, or is about to. */
export async function cancelBatch(tx: Db, id: string): Promise<Batch | undefined> {
  const { rows } = await tx.query<Batch>(
    `update batches
        set status = 'cancelling', cancelling_at = coalesce(cancelling_at, now())
      where id = $1 and status in ('validating', 'in_progress', 'cancelling')
      returning *`,
    [id],
  )
  return rows[0]
}

/** Its files are being written; one that is being cancelled keeps that status. */
export async function finalizeBatch(tx: Db, id: string): Promise<Batch> {
  const { rows } = await tx.query<Batch>(
    `update batches
        set status = case when status = 'cancelling' then status else 'finalizing' end,
            finalizing_at = case when status = 'cancelling' then finalizing_at
                                 else coalesce(finalizing_at, now()) end
      where id = $1
      returning *`,
    [id],
  )
  return rows[0]!
}

/** Ends it; what was kept of its answers is in its files now. */
export async function endBatch(
  tx: Db,
  id: string,
  end: {
    status: 'completed' | 'expired' | 'cancelled' | 'failed'
    errors?: readonly LineError[]
    output_file_id?: string | undefined
    error_file_id?: string | undefined
  },
): Promise<void> {
  await tx.query(
    `update batches
        set status = $2, finished_at = now(), errors = $3, output_file_id = $4, error_file_id = $5,
            input_sha256 = null
      where id = $1`,
    [
      id,
      end.status,
      end.errors ? JSON.stringify(end.errors) : null,
      end.output_file_id ?? null,
      end.error_file_id ?? null,
    ],
  )
  await tx.query('delete from batch_answers where batch_id = $1', [id])
}

/** The answer to one line, as it will stand in a file, and what it took. */
export interface BatchAnswer {
  line: number
  failed: boolean
  answer: string
  input_tokens: number
  cached_tokens: number
  output_tokens: number
}

/** Keeps answers and counts them; a line that has one already keeps that. */
export async function insertBatchAnswers(
  tx: Db,
  id: string,
  answers: readonly BatchAnswer[],
): Promise<void> {
  const column = <K extends keyof BatchAnswer>(name: K) => answers.map((one) => one[name])
  await tx.query(
    `with given as (
       select * from unnest($2::int[], $3::bool[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
           as t (line, failed, answer, input_tokens, cached_tokens, output_tokens)
     ), kept as (
       insert into batch_answers (batch_id, line, failed, answer)
       select $1, line, failed, answer from given
       on conflict do nothing
       returning line
     ), sums as (
       select count(*) filter (where not failed) as completed, count(*) filter (where failed) as failed,
              sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
              sum(output_tokens) as output_tokens
         from given join kept using (line)
     )
     update batches b
        set completed = b.completed + s.completed, failed = b.failed + s.failed,
            input_tokens = b.input_tokens + coalesce(s.input_tokens, 0),
            cached_tokens = b.cached_tokens + coalesce(s.cached_tokens, 0),
            output_tokens = b.output_tokens + coalesce(s.output_tokens, 0)
       from sums s
      where b.id = $1`,
    [
      id,
      column('line'),
      column('failed'),
      column('answer'),
      column('input_tokens'),
      column('cached_tokens'),
      column('output_tokens'),
    ],
  )
}

/** Which lines have an answer. */
export async function answeredLines(db: Db, id: string): Promise<Set<number>> {
  const { rows } = await db.query<{ line: number }>(
    'select line from batch_answers where batch_id = $1',
    [id],
  )
  return new Set(rows.map(({ line }) => line))
}

/** Some of the answers behind a line, in the order of the input. */
export async function listBatchAnswers(
  db: Db,
  id: string,
  query: { failed: boolean; after: number; limit: number },
): Promise<{ line: number; answer: string }[]> {
  const { rows } = await db.query<{ line: number; answer: string }>(
    `select line, answer from batch_answers
      where batch_id = $1 and failed = $2 and line > $3
      order by line
      limit $4`,
    [id, query.failed, query.after, query.limit],
  )
  return rows
}
