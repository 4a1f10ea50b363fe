// Responses that are kept: read again, gone on from, deleted, and forgotten when they are old.

import { invalidRequest, notFound } from '../../errors.ts'
import { badCursor } from '../cursor.ts'
import type { Db } from '../db/pool.ts'
import {
  deleteOldResponses,
  deleteResponse,
  findResponse,
  insertResponse,
  type StoredResponse,
  turnsUpTo,
} from '../db/responses.ts'
import type { Item } from './items.ts'

/** As OpenAI keeps them. */
export const KEPT_DAYS = 30

export interface ItemQuery {
  after?: string | undefined
  limit: number
  order: 'asc' | 'desc'
}

export interface Responses {
  keep(one: StoredResponse): Promise<void>
  /** 404 unless the project has it. */
  retrieve(project_id: string, id: string): Promise<StoredResponse>
  /** What was new in its request. One more than `limit`, where there are more. */
  items(project_id: string, id: string, query: ItemQuery): Promise<Item[]>
  /** All that was said up to a response, its own output last; 400 where any of it is gone. */
  conversation(project_id: string, previous_response_id: string): Promise<Item[]>
  delete(project_id: string, id: string): Promise<void>
  /** Deletes what is too old; a conversation stays as long as its last response. */
  sweep(): Promise<void>
}

export function createResponses(db: Db): Responses {
  async function retrieve(project_id: string, id: string): Promise<StoredResponse> {
    const found = await findResponse(db, project_id, id)
    if (!found) throw responseNotFound(id)
    return found
  }

  return {
    retrieve,
    keep: (one) => insertResponse(db, one),

    async items(project_id, id, { after, limit, order }) {
      const { input } = await retrieve(project_id, id)
      const items = order === 'asc' ? input : input.toReversed()
      const at = after === undefined ? -1 : items.findIndex((item) => item.id === after)
      if (after !== undefined && at < 0) throw badCursor(after)
      return items.slice(at + 1, at + 2 + limit)
    },

    async conversation(project_id, previous_response_id) {
      const turns = await turnsUpTo(db, project_id, previous_response_id)
      const missing = turns.length === 0 ? previous_response_id : turns[0]!.previous_response_id
      if (missing !== null)
        throw invalidRequest(`Previous response with id '${missing}' not found.`, {
          param: 'previous_response_id',
          code: 'previous_response_not_found',
        })
      return turns.flatMap(({ input, response }) => [...input, ...response.output])
    },

    async delete(project_id, id) {
      if (!(await deleteResponse(db, project_id, id))) throw responseNotFound(id)
    },

    async sweep() {
      while ((await deleteOldResponses(db, KEPT_DAYS)) > 0);
    },
  }
}

const responseNotFound = (id: string) =>
  notFound(`Response with id '${id}' not found.`, { param: 'response_id' })
