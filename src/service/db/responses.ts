// The table `responses`: answers that are kept, each with what was new in its request.

import type { Item, OutputItem } from '../answers/items.ts'
import type { Db } from './pool.ts'

/** The answer as it was given; the wire's business but for these. */
export interface ResponseBody {
  id: string
  output: OutputItem[]
}

export interface StoredResponse {
  id: string
  project_id: string
  previous_response_id: string | null
  response: ResponseBody
  input: Item[]
}

export async function insertResponse(db: Db, one: StoredResponse): Promise<void> {
  await db.query(
    `insert into responses (id, project_id, previous_response_id, response, input)
     values ($1, $2, $3, $4, $5)`,
    [
      one.id,
      one.project_id,
      one.previous_response_id,
      JSON.stringify(one.response),
      JSON.stringify(one.input),
    ],
  )
}

export async function findResponse(
  db: Db,
  project_id: string,
  id: string,
): Promise<StoredResponse | undefined> {
  const { rows } = await db.query<StoredResponse>(
    'select * from responses where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** A response and all that it went on from, the first of them first. */
export async function turnsUpTo(db: Db, project_id: string, id: string): Promise<StoredResponse[]> {
  // `response -> 'output'` would be less to read, and refuses a text with NUL in it.
  const { rows } = await db.query<StoredResponse>(
    `with recursive turns as (
       select *, 0 as back from responses where project_id = $1 and id = $2
       union all
       select r.*, turns.back + 1
         from turns join responses r on r.id = turns.previous_response_id and r.project_id = $1
     )
     select id, project_id, previous_response_id, response, input from turns order by back desc`,
    [project_id, id],
  )
  return rows
}

export async function deleteResponse(db: Db, project_id: string, id: string): Promise<boolean> {
  const { rowCount } = await db.query('delete from responses where project_id = $1 and id = $2', [
    project_id,
    id,
  ])
  return rowCount === 1
}

/** Those that are older than so many days, and that no other one goes on from; of a long conversation the last goes first. */
export async function deleteOldResponses(db: Db, days: number): Promise<number> {
  const { rowCount } = await db.query(
    `delete from responses old
      where created_at < now() - make_interval(days => $1)
        and not exists (select from responses next where next.previous_response_id = old.id)`,
    [days],
  )
  return rowCount ?? 0
}
