// The table `chat_completions`: answers that were asked with `store`, and the messages that they answer.

import type { Db } from './pool.ts'

export interface StoredMessage {
  role: string
  content?: string | readonly object[] | null
  name?: string
  refusal?: string | null
  tool_calls?: unknown[] | null
  tool_call_id?: string
}

export interface StoredCompletion {
  id: string
  project_id: string
  model: string
  metadata: Record<string, string>
  /** The wire's business. */
  completion: object
  messages: StoredMessage[]
}

export async function insertCompletion(db: Db, one: StoredCompletion): Promise<void> {
  await db.query(
    `insert into chat_completions (id, project_id, model, metadata, completion, messages)
     values ($1, $2, $3, $4, $5, $6)`,
    [
      one.id,
      one.project_id,
      one.model,
      JSON.stringify(one.metadata),
      JSON.stringify(one.completion),
      JSON.stringify(one.messages),
    ],
  )
}

export async function findCompletion(
  db: Db,
  project_id: string,
  id: string,
): Promise<StoredCompletion | undefined> {
  const { rows } = await db.query<StoredCompletion>(
    'select * from chat_completions where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

export interface CompletionQuery {
  after?: string | undefined
  limit: number
  order: 'asc' | 'desc'
  model?: string | undefined
  /** Pairs that it has, all of them. */
  metadata?: Record<string, string> | undefined
}

/** `limit` of them behind `after`, by the time at which they were kept. */
export async function listCompletions(
  db: Db,
  project_id: string,
  query: CompletionQuery,
): Promise<StoredCompletion[]> {
  const [is, order] = query.order === 'asc' ? ['>', 'asc'] : ['<', 'desc']
  const { rows } = await db.query<StoredCompletion>(
    `select * from chat_completions
      where project_id = $1
        and ($2::text is null
             or seq ${is} (select seq from chat_completions where project_id = $1 and id = $2))
        and ($4::text is null or model = $4)
        and ($5::jsonb is null or metadata @> $5)
      order by seq ${order}
      limit $3`,
    [
      project_id,
      query.after ?? null,
      query.limit,
      query.model ?? null,
      query.metadata ? JSON.stringify(query.metadata) : null,
    ],
  )
  return rows
}

export async function updateCompletion(
  db: Db,
  project_id: string,
  id: string,
  metadata: Record<string, string>,
): Promise<StoredCompletion | undefined> {
  const { rows } = await db.query<StoredCompletion>(
    `update chat_completions set metadata = $3 where project_id = $1 and id = $2 returning *`,
    [project_id, id, JSON.stringify(metadata)],
  )
  return rows[0]
}

export async function deleteCompletion(db: Db, project_id: string, id: string): Promise<boolean> {
  const { rowCount } = await db.query(
    'delete from chat_completions where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rowCount === 1
}

export async function deleteOldCompletions(db: Db, days: number): Promise<void> {
  await db.query(
    'delete from chat_completions where created_at < now() - make_interval(days => $1)',
    [days],
  )
}
