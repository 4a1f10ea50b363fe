// Chat completions that are kept: read again, listed, noted upon, deleted, and forgotten when they are old.

import { notFound } from '../../errors.ts'
import { badCursor } from '../cursor.ts'
import {
  type CompletionQuery,
  deleteCompletion,
  deleteOldCompletions,
  findCompletion,
  insertCompletion,
  listCompletions,
  type StoredCompletion,
  updateCompletion,
} from '../db/chat-completions.ts'
import type { Db } from '../db/pool.ts'
import { KEPT_DAYS } from './responses.ts'

export interface ChatCompletions {
  keep(one: StoredCompletion): Promise<void>
  /** 404 unless the project has it. */
  retrieve(project_id: string, id: string): Promise<StoredCompletion>
  /** One more than `limit`, where there are more. */
  list(project_id: string, query: CompletionQuery): Promise<StoredCompletion[]>
  update(
    project_id: string,
    id: string,
    metadata: Record<string, string>,
  ): Promise<StoredCompletion>
  delete(project_id: string, id: string): Promise<void>
  /** Deletes what is too old. */
  sweep(): Promise<void>
}

export const createChatCompletions = (db: Db): ChatCompletions => ({
  keep: (one) => insertCompletion(db, one),

  async retrieve(project_id, id) {
    const found = await findCompletion(db, project_id, id)
    if (!found) throw completionNotFound(id)
    return found
  },

  async list(project_id, query) {
    if (query.after !== undefined && !(await findCompletion(db, project_id, query.after)))
      throw badCursor(query.after)
    return listCompletions(db, project_id, { ...query, limit: query.limit + 1 })
  },

  async update(project_id, id, metadata) {
    const updated = await updateCompletion(db, project_id, id, metadata)
    if (!updated) throw completionNotFound(id)
    return updated
  },

  async delete(project_id, id) {
    if (!(await deleteCompletion(db, project_id, id))) throw completionNotFound(id)
  },

  sweep: () => deleteOldCompletions(db, KEPT_DAYS),
})

const completionNotFound = (id: string) =>
  notFound(`Chat completion with id '${id}' not found.`, { param: 'completion_id' })
