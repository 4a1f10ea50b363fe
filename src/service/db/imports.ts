// The table `imports`. Transitions are guarded in the statement, writes of a worker by its lease.

import type { ImportKind } from '../../engine/import/request.ts'
import type { JobError } from '../jobs/file-errors.ts'
import type { Db } from './pool.ts'

export type ImportStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'

/** One file as it came. */
export interface ReceivedFile {
  /** The uploaded file's id, or what was pulled: `hf:owner/name`. */
  source: string
  filename: string
  sha256: string
  bytes: number
}

export interface Import {
  id: string
  project_id: string
  organization_id: string
  status: ImportStatus
  received: ReceivedFile[]
  /** The model that an adapter is for, where it was named. */
  base_model: string | null
  user_provided_suffix: string | null
  metadata: Record<string, string> | null
  kind: ImportKind | null
  /** What lay beside the model and was left out. */
  ignored: string[]
  imported_model: string | null
  error: JobError | null
  created_at: Date
  finished_at: Date | null
}

export type NewImport = Pick<
  Import,
  | 'id'
  | 'project_id'
  | 'organization_id'
  | 'received'
  | 'base_model'
  | 'user_provided_suffix'
  | 'metadata'
>

export async function insertImport(tx: Db, one: NewImport): Promise<Import> {
  const { rows } = await tx.query<Import>(
    `insert into imports
       (id, project_id, organization_id, status, received, base_model, user_provided_suffix, metadata)
     values ($1, $2, $3, 'queued', $4, $5, $6, $7)
     returning *`,
    [
      one.id,
      one.project_id,
      one.organization_id,
      JSON.stringify(one.received),
      one.base_model,
      one.user_provided_suffix,
      one.metadata && JSON.stringify(one.metadata),
    ],
  )
  return rows[0]!
}

export async function findImport(
  db: Db,
  project_id: string,
  id: string,
): Promise<Import | undefined> {
  const { rows } = await db.query<Import>(
    'select * from imports where project_id = $1 and id = $2',
    [project_id, id],
  )
  return rows[0]
}

/** Newest first, older than the import `after`. */
export async function listImports(
  db: Db,
  query: { project_id: string; after?: string | undefined; limit: number },
): Promise<Import[]> {
  const { rows } = await db.query<Import>(
    `select * from imports
      where project_id = $1
        and ($2::text is null
             or seq < (select seq from imports where project_id = $1 and id = $2))
      order by seq desc
      limit $3`,
    [query.project_id, query.after ?? null, query.limit],
  )
  return rows
}

export async function setImporting(tx: Db, id: string): Promise<void> {
  await tx.query(`update imports set status = 'running' where id = $1 and finished_at is null`, [
    id,
  ])
}

/** Ends it; undefined where it has ended before. */
export async function endImport(
  tx: Db,
  id: string,
  end:
    | ({ status: 'succeeded' } & Pick<Import, 'imported_model' | 'kind' | 'ignored'>)
    | { status: 'cancelled' }
    | { status: 'failed'; error: JobError },
): Promise<Import | undefined> {
  const made = end.status === 'succeeded' ? end : undefined
  const { rows } = await tx.query<Import>(
    `update imports
        set status = $2, finished_at = now(), error = $3, imported_model = $4, kind = $5,
            ignored = $6
      where id = $1 and finished_at is null
      returning *`,
    [
      id,
      end.status,
      end.status === 'failed' ? JSON.stringify(end.error) : null,
      made?.imported_model ?? null,
      made?.kind ?? null,
      made?.ignored ?? [],
    ],
  )
  return rows[0]
}
